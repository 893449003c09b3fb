// A device other than the CPU, on machines that have none.
#pragma once

#include <torch/types.h>

namespace quiver::testing {

/// Registers, once, a device of libtorch's kind PrivateUse1 and returns it. It computes what the CPU computes, by copies, but is as strict as a
/// GPU: its memory cannot be read but through libtorch (a stray data_ptr() crashes), and an operation over tensors of two devices throws, scalars aside. So a test
/// that passes on it shows that code works on GPUs as far as placement goes.
torch::Device strict_device();

}  // namespace quiver::testing
