// Tensors that lie in a mapped file, so that opening a model copies nothing.
#pragma once

#include <torch/types.h>

#include "quiver/io/file.h"
#include "quiver/io/safetensors.h"

namespace quiver::tensor {

/// The entry's bytes, which lie in `file`, as a tensor on the CPU; without a copy if they are aligned. The tensor keeps the file mapped and
/// is not to be written to. Its pages leave the memory with it (MappedFile::release).
torch::Tensor mapped_tensor(const io::TensorEntry& entry, const io::MappedFile& file);

/// Takes the pages of a mapped_tensor out of the memory until they are looked at again. Other tensors stay as they are.
void release_pages(const torch::Tensor& tensor);

}  // namespace quiver::tensor
