#include "quiver/tensor/tensor.h"

#include <torch/cuda.h>
#include <torch/utils.h>

#include <sstream>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::tensor {

std::string describe(const torch::Tensor& tensor) {
  if (!tensor.defined()) return "none";
  std::ostringstream text;
  text << c10::toString(tensor.scalar_type()) << ' ' << tensor.sizes();
  return text.str();
}

void expect_tensors(const TensorMap& tensors, const TensorSpecs& specs, const std::string& origin, const std::string& hint) {
  for (const auto& [name, spec] : specs) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) fail(ErrorKind::kBadFormat, "{} lacks the tensor '{}'{}", origin, name, hint);
    const auto& tensor = found->second;
    std::string sizes;
    for (const auto size : spec.sizes) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    if (!tensor.defined() || tensor.scalar_type() != spec.dtype || !tensor.sizes().equals(spec.sizes)) {
      fail(ErrorKind::kBadFormat, "{}: tensor '{}' is {}; expected {} [{}]{}", origin, name, describe(tensor), c10::toString(spec.dtype),
           sizes, hint);
    }
  }
  for (const auto& [name, tensor] : tensors) {
    if (!specs.contains(name)) fail(ErrorKind::kBadFormat, "{} holds a tensor '{}', which has no place in it{}", origin, name, hint);
  }
}

void expect_like(const torch::Tensor& tensor, const torch::Tensor& like, const char* what) {
  if (tensor.defined() && tensor.scalar_type() == like.scalar_type() && tensor.sizes().equals(like.sizes())) return;
  fail(ErrorKind::kInternal, "{}: {}; expected {}", what, describe(tensor), describe(like));
}

namespace {

constexpr std::pair<io::Dtype, torch::Dtype> kDtypes[] = {{io::Dtype::kF64, torch::kDouble}, {io::Dtype::kF32, torch::kFloat},
                                                          {io::Dtype::kF16, torch::kHalf},   {io::Dtype::kBF16, torch::kBFloat16},
                                                          {io::Dtype::kI64, torch::kLong},   {io::Dtype::kI32, torch::kInt},
                                                          {io::Dtype::kI16, torch::kShort},  {io::Dtype::kI8, torch::kChar},
                                                          {io::Dtype::kU8, torch::kByte},    {io::Dtype::kBool, torch::kBool}};

}  // namespace

torch::Dtype to_torch_dtype(io::Dtype dtype) {
  for (const auto& [of_file, of_torch] : kDtypes) {
    if (of_file == dtype) return of_torch;
  }
  fail(ErrorKind::kInternal, "unknown safetensors dtype {}", dtype);
}

io::Dtype from_torch_dtype(torch::Dtype dtype) {
  for (const auto& [of_file, of_torch] : kDtypes) {
    if (of_torch == dtype) return of_file;
  }
  fail(ErrorKind::kUnsupported, "a tensor of dtype {} cannot be stored as safetensors", c10::toString(dtype));
}

torch::Tensor to_tensor(const io::TensorEntry& entry) {
  auto tensor = torch::empty(entry.shape, torch::TensorOptions().dtype(to_torch_dtype(entry.dtype)));
  std::ranges::copy(entry.data, mutable_raw_bytes(tensor, "a tensor of a file").begin());
  return tensor;
}

TensorMap load_tensors(const std::filesystem::path& path) {
  const io::MappedFile file(path);
  const auto view = io::SafetensorsView::parse(file.bytes(), path.string());
  TensorMap tensors;
  for (const auto& entry : view.entries()) tensors.emplace(entry.name, to_tensor(entry));
  return tensors;
}

void save_tensors(const std::filesystem::path& path, const TensorMap& tensors, const std::map<std::string, std::string>& metadata) {
  std::vector<torch::Tensor> kept;  // the entries below point into these
  std::vector<io::TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.detach().to(torch::kCPU).contiguous());
    const auto& stored = kept.back();
    entries.push_back({name, from_torch_dtype(stored.scalar_type()), stored.sizes().vec(), raw_bytes(stored, "a tensor of a file")});
  }
  io::write_safetensors(path, entries, metadata);
}

namespace {

bool multiplies_bfloat16(const torch::Device& device) {
  if (device.is_cuda()) return true;
  return __builtin_cpu_supports("avx512bf16") != 0;
}

}  // namespace

Placement resolve_placement(const std::string& device, const std::string& dtype) {
  Placement placement;
  if (device == "cuda" || (device == "auto" && torch::cuda::is_available())) {
    if (!torch::cuda::is_available()) {
      fail(ErrorKind::kUnsupported,
           "`device=cuda`: this libtorch finds no CUDA device; use `device=cpu`, or a CUDA build of libtorch (TORCH_DIR)");
    }
    placement.device = torch::Device(torch::kCUDA, 0);
  } else if (device != "cpu" && device != "auto") {
    fail(ErrorKind::kUsage, "`device` '{}' is not one of auto, cpu, cuda", device);
  }
  if (dtype == "bfloat16" || (dtype == "auto" && multiplies_bfloat16(placement.device))) {
    placement.dtype = torch::kBFloat16;
  } else if (dtype != "float32" && dtype != "auto") {
    fail(ErrorKind::kUsage, "`dtype` '{}' is not one of auto, float32, bfloat16", dtype);
  }
  return placement;
}

torch::Tensor uniform(torch::IntArrayRef sizes, double bound, RandomStream& random) {
  auto values = torch::empty(sizes, torch::kFloat);
  for (auto& value : mutable_elements<float>(values, "uniform numbers")) value = static_cast<float>(random.uniform(-bound, bound));
  return values;
}

}  // namespace quiver::tensor
