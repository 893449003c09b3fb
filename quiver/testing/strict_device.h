// A device other than the CPU, on machines that have none.
#pragma once

#include <torch/types.h>

namespace quiver::testing {

/// The GPU, where libtorch has one. Else registers, once, a device of libtorch's kind PrivateUse1 and returns it. It computes what the CPU
/// computes, by copies, but is as strict as a GPU: its memory cannot be read but through libtorch (a stray data_ptr() crashes) and is NaN
/// until it is written, and an operation over tensors of two devices throws, scalars aside. So what passes on it is placed as a GPU wants
/// it.
torch::Device strict_device();
/// Whether it is a GPU.
bool strict_device_is_gpu();

}  // namespace quiver::testing
