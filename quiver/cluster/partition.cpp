#include "quiver/cluster/partition.h"

#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "quiver/base/error.h"

namespace quiver::cluster {

std::vector<std::int64_t> canonical_labels(std::span<const std::int64_t> labels) {
  std::map<std::int64_t, std::int64_t> renamed;
  std::vector<std::int64_t> result;
  result.reserve(labels.size());
  for (const auto label : labels) {
    result.push_back(renamed.try_emplace(label, static_cast<std::int64_t>(renamed.size())).first->second);
  }
  return result;
}

std::vector<std::vector<std::string>> members_of(std::span<const std::string> names, std::span<const std::int64_t> labels) {
  std::vector<std::vector<std::string>> members;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto label = static_cast<std::size_t>(labels[i]);
    if (label >= members.size()) members.resize(label + 1);
    members[label].push_back(names[i]);
  }
  return members;
}

std::vector<std::size_t> order_by_name(std::span<const std::string> names, std::string_view what) {
  std::vector<std::size_t> order(names.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](std::size_t i) -> const std::string& { return names[i]; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (names[order[i]] == names[order[i - 1]]) {
      fail(ErrorKind::kUsage, "two {} are called '{}': clusters are told by name, so rename one", what, names[order[i]]);
    }
  }
  return order;
}

double silhouette(const torch::Tensor& points, std::span<const std::int64_t> labels) {
  const torch::NoGradGuard no_grad;
  const auto count = static_cast<std::int64_t>(labels.size());
  if (points.dim() != 2 || points.size(0) != count) {
    fail(ErrorKind::kMismatch, "{} labels do not fit {} points: there must be one label for each point", count,
         points.dim() > 0 ? points.size(0) : 0);
  }
  const auto numbers = canonical_labels(labels);
  const auto num_clusters = numbers.empty() ? 0 : *std::max_element(numbers.begin(), numbers.end()) + 1;
  if (num_clusters < 2) return 0;

  const auto matrix = points.to(torch::kCPU, torch::kDouble);
  const auto distances = torch::cdist(matrix, matrix, /*p=*/2, /*compute_mode=*/2);             // by differences, [T, T]
  const auto member = torch::one_hot(torch::tensor(numbers), num_clusters).to(torch::kDouble);  // [T, K]
  const auto sums_tensor = distances.matmul(member).contiguous();                               // [T, K]
  const auto sizes_tensor = member.sum(0);                                                      // [K]
  const auto sums = sums_tensor.accessor<double, 2>();
  const auto sizes = sizes_tensor.accessor<double, 1>();
  double total = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto own = numbers[static_cast<std::size_t>(i)];
    if (sizes[own] < 2) continue;
    const double within = sums[i][own] / (sizes[own] - 1);
    double nearest = std::numeric_limits<double>::infinity();
    for (std::int64_t k = 0; k < num_clusters; ++k) {
      if (k != own) nearest = std::min(nearest, sums[i][k] / sizes[k]);
    }
    const double larger = std::max(within, nearest);
    if (larger > 0) total += (nearest - within) / larger;
  }
  return total / static_cast<double>(count);
}

}  // namespace quiver::cluster
