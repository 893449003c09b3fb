// The bridge between files and libtorch: dtypes, devices, named tensors.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "quiver/base/random.h"
#include "quiver/io/safetensors.h"

namespace quiver::tensor {

/// Named tensors, in name order.
using TensorMap = std::map<std::string, torch::Tensor>;

/// "Float [32, 8]", for messages; "none" for an undefined tensor.
std::string describe(const torch::Tensor& tensor);

/// What norms, softmax and losses are computed in: float64 for float64, else float32.
inline torch::Dtype compute_dtype(torch::Dtype dtype) { return dtype == torch::kDouble ? torch::kDouble : torch::kFloat; }

torch::Dtype to_torch_dtype(io::Dtype dtype);
/// Throws kUnsupported for dtypes that safetensors has not.
io::Dtype from_torch_dtype(torch::Dtype dtype);

/// What a tensor of a file has to be.
struct TensorSpec {
  torch::Dtype dtype;
  std::vector<std::int64_t> sizes;
};
using TensorSpecs = std::map<std::string, TensorSpec>;
/// Throws kBadFormat unless `tensors` are exactly those of `specs`. The message begins with `origin`, names the tensor and both shapes, and
/// ends with `hint`.
void expect_tensors(const TensorMap& tensors, const TensorSpecs& specs, const std::string& origin, const std::string& hint = "");

/// Throws kInternal, beginning with `what`, unless `tensor` has the dtype and the shape of `like`.
void expect_like(const torch::Tensor& tensor, const torch::Tensor& like, const char* what);

/// A copy of the entry's bytes as a tensor on the CPU.
torch::Tensor to_tensor(const io::TensorEntry& entry);

/// All tensors of a safetensors file, copied. Errors as SafetensorsView::parse.
TensorMap load_tensors(const std::filesystem::path& path);
/// Writes a safetensors file atomically. Tensors may be anywhere and of any layout.
void save_tensors(const std::filesystem::path& path, const TensorMap& tensors, const std::map<std::string, std::string>& metadata = {});

/// What the user chose, resolved: where the model lives and what the base computes in.
struct Placement {
  torch::Device device = torch::kCPU;
  torch::Dtype dtype = torch::kFloat;
};

/// device: "auto", "cpu" or "cuda"; dtype: "auto", "float32" or "bfloat16". "auto" is a GPU where there is one, and
/// bfloat16 where the hardware multiplies it (AVX-512 BF16, a GPU), else float32: without such hardware libtorch's
/// bfloat16 products are tens of times slower. Throws kUsage for other words, kUnsupported for a missing GPU.
Placement resolve_placement(const std::string& device, const std::string& dtype);

/// Uniform in [-bound, bound), float32, drawn in row-major order from `random`.
torch::Tensor uniform(torch::IntArrayRef sizes, double bound, RandomStream& random);

}  // namespace quiver::tensor
