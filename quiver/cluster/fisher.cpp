#include "quiver/cluster/fisher.h"

#include <torch/utils.h>

#include <cmath>

#include "quiver/base/error.h"
#include "quiver/tensor/finite.h"

namespace quiver::cluster {
namespace {

/// The diagonal at `path` as float64, checked.
torch::Tensor checked(const torch::Tensor& diagonal, const std::string& path) {
  const auto values = diagonal.detach().to(torch::kCPU, torch::kDouble);
  if (!tensor::all_finite(values) || (values < 0).any().item<bool>()) {
    fail(ErrorKind::kUsage, "the squared gradients at '{}' hold entries that are negative or not finite", path);
  }
  return values;
}

void check_paths(const tensor::TensorMap& a, const tensor::TensorMap& b) {
  for (const auto& [path, value] : a) {
    const auto found = b.find(path);
    if (found == b.end()) fail(ErrorKind::kMismatch, "the first Fisher diagonal has '{}' and the second has not", path);
    if (value.sizes() != found->second.sizes()) {
      fail(ErrorKind::kMismatch, "the Fisher diagonals differ at '{}': {} and {}", path, tensor::describe(value),
           tensor::describe(found->second));
    }
  }
  for (const auto& [path, value] : b) {
    if (!a.contains(path)) fail(ErrorKind::kMismatch, "the second Fisher diagonal has '{}' and the first has not", path);
  }
}

double total(const torch::Tensor& values) { return values.sum().item<double>(); }

}  // namespace

double fisher_similarity(const tensor::TensorMap& a, const tensor::TensorMap& b) {
  const torch::NoGradGuard no_grad;
  check_paths(a, b);
  double cosines = 0;  // of the shares, added over the paths
  std::int64_t num_paths = 0;
  for (const auto& [path, value] : a) {
    const auto x = checked(value, path), y = checked(b.at(path), path);
    const auto both = x + y;
    const auto share = torch::where(both > 0, x / both, torch::zeros_like(x));
    const auto rest = torch::where(both > 0, y / both, torch::zeros_like(y));
    const double norms = std::sqrt(total(share.square())) * std::sqrt(total(rest.square()));
    if (!(norms > 0)) continue;
    cosines += total(share * rest) / norms;
    ++num_paths;
  }
  if (num_paths == 0) {
    fail(ErrorKind::kUsage, "the Fisher diagonals cannot be compared: there is no path where both have entries above 0");
  }
  return cosines / static_cast<double>(num_paths);
}

}  // namespace quiver::cluster
