#include "quiver/merge/knots.h"

#include <torch/utils.h>

#include <map>
#include <string>
#include <vector>

#include "quiver/merge/common.h"
#include "quiver/merge/sparsify.h"
#include "quiver/tensor/quantile.h"

namespace quiver::merge {
namespace {

/// The updates of one projection in their shared basis: delta_w_i = U core_i Q_i^T.
struct SharedBasis {
  torch::Tensor u;                  ///< [d_out, K], orthonormal columns
  std::vector<torch::Tensor> core;  ///< [K, q_i] each
  std::vector<torch::Tensor> q;     ///< [d_in, q_i] each, orthonormal columns, q_i = min(r_i, d_in)

  /// S V_i^T, [K, d_in].
  torch::Tensor part(std::size_t i) const { return core[i].matmul(q[i].t()); }
};

SharedBasis shared_basis(std::span<const adapters::LoraAdapter> adapters, const std::string& path) {
  SharedBasis basis;
  std::vector<torch::Tensor> b, r_a;
  for (const auto& adapter : adapters) {
    const auto pair = adapter.pairs.at(path).to(torch::kCPU, torch::kDouble);
    const auto [q, r] = torch::linalg_qr(pair.lora_a().t());
    basis.q.push_back(q);
    r_a.push_back(r);
    b.push_back(pair.lora_b() * pair.scaling());
  }
  const auto [q_b, r_b] = torch::linalg_qr(torch::cat(b, 1));
  std::vector<torch::Tensor> blocks;  // of the core, [K, q_i] each
  std::int64_t column = 0;
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    blocks.push_back(r_b.narrow(1, column, b[i].size(1)).matmul(r_a[i].t()));
    column += b[i].size(1);
  }
  auto [u, s, vh] = torch::linalg_svd(torch::cat(blocks, 1), /*full_matrices=*/false);
  const auto rank = std::max<std::int64_t>(1, (s > s[0] * kSingularCutoff).sum().item<std::int64_t>());  // 1 where all updates are 0
  basis.u = q_b.matmul(u.narrow(1, 0, rank));
  // An SVD leaves the signs open.
  const auto largest = basis.u.gather(0, basis.u.abs().argmax(0, /*keepdim=*/true));  // [1, K]
  const auto sign = torch::where(largest < 0, -1.0, 1.0).to(torch::kDouble);
  basis.u = basis.u * sign;
  const auto sv = vh.narrow(0, 0, rank) * (s.narrow(0, 0, rank) * sign[0]).unsqueeze(1);
  column = 0;
  for (const auto& block : blocks) {
    basis.core.push_back(sv.narrow(1, column, block.size(1)));
    column += block.size(1);
  }
  return basis;
}

using Bases = std::map<std::string, SharedBasis>;

/// The magnitude below which entries of adapter i's parts are trimmed.
double threshold_of(const Bases& bases, std::size_t i, double density) {
  std::vector<torch::Tensor> entries;
  for (const auto& [path, basis] : bases) entries.push_back(basis.part(i).flatten());
  return tensor::magnitude_quantile(torch::cat(entries), 1 - density);
}

torch::Tensor mean_of(std::size_t count, const Parts& part) {
  auto sum = part(0).clone();
  for (std::size_t i = 1; i < count; ++i) sum += part(i);
  return sum / static_cast<double>(count);
}

double density_of(const KnotsOptions& options) { return options.density.value_or(options.merge == KnotsMerge::kTies ? 0.2 : 0.5); }

torch::Tensor merged_part(std::span<const adapters::LoraAdapter> adapters, const std::string& path, const SharedBasis& basis,
                          const std::vector<double>& thresholds, const KnotsOptions& options) {
  const auto count = adapters.size();
  switch (options.merge) {
    case KnotsMerge::kTies: return disjoint_mean(count, [&](std::size_t i) { return trimmed(basis.part(i), thresholds[i]); });
    case KnotsMerge::kDare:
      return mean_of(count, [&](std::size_t i) {
        const auto part = basis.part(i);
        return part * keep_mask(part.sizes(), density_of(options), options.seed, "knots/" + adapters[i].name + "/" + path) /
               density_of(options);
      });
    case KnotsMerge::kMean: break;
  }
  return mean_of(count, [&](std::size_t i) { return basis.part(i); });
}

}  // namespace

adapters::LoraAdapter knots(std::span<const adapters::LoraAdapter> adapters, const KnotsOptions& options) {
  check_density(density_of(options));
  check_mixable(adapters, Agreement::kShapes);
  const torch::NoGradGuard no_grad;
  Bases bases;
  for (const auto& [path, first] : adapters.front().pairs) bases.emplace(path, shared_basis(adapters, path));
  std::vector<double> thresholds;
  if (options.merge == KnotsMerge::kTies) {
    for (std::size_t i = 0; i < adapters.size(); ++i) thresholds.push_back(threshold_of(bases, i, density_of(options)));
  }
  return mixture_of_products(adapters, "knots", [&](const std::string& path) {
    const auto& basis = bases.at(path);
    return Factors{merged_part(adapters, path, basis, thresholds, options), basis.u};
  });
}

}  // namespace quiver::merge
