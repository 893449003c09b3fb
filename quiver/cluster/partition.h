// Comparing and judging partitions of a set of points into clusters.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::cluster {

/// The same partition with clusters numbered by their first member: 0 is the cluster of the first point, and so on.
std::vector<std::int64_t> canonical_labels(std::span<const std::int64_t> labels);

/// The names with each label, [K], in the order given; labels from 0, one for each name.
std::vector<std::vector<std::string>> members_of(std::span<const std::string> names, std::span<const std::int64_t> labels);

/// The indices of the names in the order of the names. Throws kUsage, calling them `what`, for a name that occurs twice.
std::vector<std::size_t> order_by_name(std::span<const std::string> names, std::string_view what);

/// Mean over the points of (b - a) / max(a, b), a the mean distance to the others of its own cluster and b the least mean distance to
/// another cluster (Rousseeuw 1987); a point alone in its cluster counts 0. In [-1, 1]. points [T, d]. 0 by convention where there are
/// fewer than 2 clusters. Throws kMismatch unless there are T labels.
double silhouette(const torch::Tensor& points, std::span<const std::int64_t> labels);

}  // namespace quiver::cluster
