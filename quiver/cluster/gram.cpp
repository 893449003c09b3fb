// The Gram matrices of model-based clustering, summed over blocks of coordinates.
#include <torch/utils.h>

#include <algorithm>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/cluster/mbc.h"
#include "quiver/tensor/tensor.h"

namespace quiver::cluster {
namespace {

using adapters::LoraAdapter;
using adapters::LoraPair;

/// Doubles of the largest block of vectors held at once (32 MiB).
constexpr std::int64_t kBlockEntries = std::int64_t{1} << 22;

[[noreturn]] void fail_paths(const LoraAdapter& first, const LoraAdapter& other) {
  for (const auto& [path, pair] : first.pairs) {
    if (!other.pairs.contains(path)) {
      fail(ErrorKind::kMismatch,
           "adapter '{}' adapts '{}' and adapter '{}' does not: adapters can be clustered only if they adapt the same projections",
           first.name, path, other.name);
    }
  }
  fail_paths(other, first);  // equal sets never come here
}

void check_values(const LoraAdapter& adapter) {
  adapters::refuse_more_than_lora(adapter, "cluster");
  adapters::refuse_not_finite(adapter, "cluster");
}

/// Same paths everywhere; same shapes at each, except for the rank where `any_rank`.
void check_alike(std::span<const LoraAdapter> adapters, bool any_rank) {
  if (adapters.empty()) fail(ErrorKind::kUsage, "no adapters to compare");
  const auto& first = adapters.front();
  if (first.pairs.empty()) fail(ErrorKind::kMismatch, "adapter '{}' adapts nothing", first.name);
  for (const auto& other : adapters) {
    check_values(other);
    const bool same_paths = std::equal(first.pairs.begin(), first.pairs.end(), other.pairs.begin(), other.pairs.end(),
                                       [](const auto& a, const auto& b) { return a.first == b.first; });
    if (!same_paths) fail_paths(first, other);
    for (const auto& [path, pair] : first.pairs) {
      const auto& twin = other.pairs.at(path);
      if (pair.in_features() != twin.in_features() || pair.out_features() != twin.out_features() ||
          (!any_rank && pair.rank() != twin.rank())) {
        fail(ErrorKind::kMismatch, "adapters '{}' and '{}' differ at '{}': lora_a is {} and {}, lora_b is {} and {}{}", first.name,
             other.name, path, tensor::describe(pair.lora_a()), tensor::describe(twin.lora_a()), tensor::describe(pair.lora_b()),
             tensor::describe(twin.lora_b()),
             any_rank ? "; they must be of one base model" : " (adapters of different ranks compare by their products)");
      }
    }
  }
}

void check_diagonal(const torch::Tensor& gram, std::span<const LoraAdapter> adapters) {
  const auto squares = gram.diagonal().contiguous();
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    if (squares[static_cast<std::int64_t>(i)].item<double>() == 0) {
      fail(ErrorKind::kUsage,
           "adapter '{}' has no direction to compare: the vector of its weights is 0 (is it untrained, or the sparsity 1?)",
           adapters[i].name);
    }
  }
}

torch::Tensor flat_double(const torch::Tensor& factor, std::int64_t begin, std::int64_t count) {
  return factor.detach().reshape(-1).narrow(0, begin, count).to(torch::kCPU, torch::kDouble);
}

/// gram += X X^T for the sparsified rows X of one factor at one path, a block of columns at a time.
void add_factor(torch::Tensor& gram, const std::vector<torch::Tensor>& factors, const torch::Tensor& thresholds) {
  const auto num_adapters = static_cast<std::int64_t>(factors.size());
  const auto size = factors.front().numel();
  const auto step = std::max<std::int64_t>(1, kBlockEntries / num_adapters);
  for (std::int64_t begin = 0; begin < size; begin += step) {
    std::vector<torch::Tensor> rows;
    for (const auto& factor : factors) rows.push_back(flat_double(factor, begin, std::min(step, size - begin)));
    auto block = torch::stack(rows);  // [T, step]
    block.masked_fill_(block.abs() <= thresholds, 0);
    gram.addmm_(block, block.t());
  }
}

/// gram_ij += <dW_i, dW_j> at one path, for a block of adapters i at a time. With the ranks of all adapters side by side, the traces are
/// sums over the r_i x r_j blocks of (A A^T) * (B^T B) (elementwise; both are symmetric).
void add_products(torch::Tensor& gram, std::span<const LoraAdapter> adapters, const std::string& path) {
  std::vector<torch::Tensor> as, bs;
  std::vector<std::int64_t> owner;  // [R]: whose rank this is, R the sum of the ranks
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    const auto& pair = adapters[i].pairs.at(path);
    as.push_back(pair.lora_a().detach().to(torch::kCPU, torch::kDouble));
    bs.push_back(pair.lora_b().detach().t().to(torch::kCPU, torch::kDouble) * pair.scaling());
    owner.insert(owner.end(), static_cast<std::size_t>(pair.rank()), static_cast<std::int64_t>(i));
  }
  const auto a = torch::cat(as);         // [R, d_in]
  const auto b = torch::cat(bs);         // [R, d_out]
  const auto of = torch::tensor(owner);  // [R]
  const auto num_ranks = a.size(0);
  const auto step = std::max<std::int64_t>(1, kBlockEntries / num_ranks);
  for (std::int64_t begin = 0; begin < num_ranks; begin += step) {
    const auto count = std::min(step, num_ranks - begin);
    const auto products = a.narrow(0, begin, count).matmul(a.t()) * b.narrow(0, begin, count).matmul(b.t());
    const auto sums = torch::zeros({count, gram.size(0)}, torch::kDouble).index_add_(1, of, products);  // [count, T]
    gram.index_add_(0, of.narrow(0, begin, count), sums);
  }
}

}  // namespace

torch::Tensor adapter_vector(const LoraAdapter& adapter) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> parts;
  for (const auto& [path, pair] : adapter.pairs) {
    for (const auto& factor : {pair.lora_a(), pair.lora_b()}) {
      parts.push_back(factor.detach().reshape(-1).to(torch::kCPU, torch::kFloat));
    }
  }
  return parts.empty() ? torch::empty({0}) : torch::cat(parts);
}

torch::Tensor gram_of_factors(std::span<const LoraAdapter> adapters, double sparsity) {
  const torch::NoGradGuard no_grad;
  check_alike(adapters, /*any_rank=*/false);
  const auto count = static_cast<std::int64_t>(adapters.size());
  std::vector<double> quantiles;
  for (const auto& adapter : adapters) quantiles.push_back(magnitude_quantile(adapter_vector(adapter), sparsity));
  const auto thresholds = torch::tensor(quantiles, torch::kDouble).unsqueeze(1);  // [T, 1]
  auto gram = torch::zeros({count, count}, torch::kDouble);
  for (const auto& [path, first] : adapters.front().pairs) {
    std::vector<torch::Tensor> as, bs;
    for (const auto& adapter : adapters) {
      as.push_back(adapter.pairs.at(path).lora_a());
      bs.push_back(adapter.pairs.at(path).lora_b());
    }
    add_factor(gram, as, thresholds);
    add_factor(gram, bs, thresholds);
  }
  check_diagonal(gram, adapters);
  return gram;
}

torch::Tensor gram_of_products(std::span<const LoraAdapter> adapters) {
  const torch::NoGradGuard no_grad;
  check_alike(adapters, /*any_rank=*/true);
  const auto count = static_cast<std::int64_t>(adapters.size());
  auto gram = torch::zeros({count, count}, torch::kDouble);
  for (const auto& [path, first] : adapters.front().pairs) {
    add_products(gram, adapters, path);
  }
  check_diagonal(gram, adapters);
  return gram;
}

}  // namespace quiver::cluster
