// Memory for weights that are read from end to end at every step.
#pragma once

#include <torch/types.h>

#include <cstdint>

namespace quiver::backend::cpu {

/// An uninitialised uint8 tensor of `num_bytes` on a cache line's border, in memory that the system is asked to give in huge pages. Reading
/// through weights of 100 MB at a time takes a third longer with pages of 4 KiB. Tensors that are made one after another lie close
/// together and share a reservation, which is returned when the last of them is gone. Throws kIo where there is no memory. Thread-safe.
torch::Tensor huge_page_bytes(std::int64_t num_bytes);

}  // namespace quiver::backend::cpu
