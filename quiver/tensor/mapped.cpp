#include "quiver/tensor/mapped.h"

#include <torch/utils.h>

#include "quiver/tensor/tensor.h"

namespace quiver::tensor {
namespace {

struct MappedPart {
  io::MappedFile file;
  std::span<const std::byte> bytes;
};

void let_go(void* context) {
  const std::unique_ptr<MappedPart> part(static_cast<MappedPart*>(context));
  part->file.release(part->bytes);
}

}  // namespace

torch::Tensor mapped_tensor(const io::TensorEntry& entry, const io::MappedFile& file) {
  const auto address = reinterpret_cast<std::uintptr_t>(entry.data.data());
  if (address % static_cast<std::uintptr_t>(io::dtype_bytes(entry.dtype)) != 0 || entry.data.empty()) return to_tensor(entry);
  auto part = std::make_unique<MappedPart>(MappedPart{file, entry.data});
  c10::DataPtr pointer(const_cast<std::byte*>(entry.data.data()), part.release(), let_go, torch::kCPU);
  const c10::Storage storage(c10::Storage::use_byte_size_t(), entry.data.size(), std::move(pointer), nullptr, false);
  const auto empty = torch::empty({0}, torch::TensorOptions().dtype(to_torch_dtype(entry.dtype)));
  return empty.set_(storage, 0, entry.shape, c10::contiguous_strides(entry.shape));
}

void release_pages(const torch::Tensor& tensor) {
  const auto& pointer = tensor.storage().data_ptr();
  if (pointer.get_deleter() != let_go) return;
  const auto* part = static_cast<const MappedPart*>(pointer.get_context());
  part->file.release(part->bytes);
}

}  // namespace quiver::tensor
