#include "quiver/engine/route_tracer.h"

#include <torch/utils.h>

#include <algorithm>
#include <cctype>

#include "quiver/tensor/raw_data.h"

namespace quiver::engine {

std::int64_t layer_of_path(const std::string& path) {
  for (std::size_t begin = 0; begin < path.size();) {
    const auto end = std::min(path.find('.', begin), path.size());
    if (end > begin && std::all_of(path.begin() + static_cast<std::ptrdiff_t>(begin), path.begin() + static_cast<std::ptrdiff_t>(end),
                                   [](unsigned char c) { return std::isdigit(c) != 0; })) {
      return std::stoll(path.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  return -1;
}

void RouteTracer::begin(std::int64_t num_rows, std::span<const std::int64_t> traced) {
  place_of_.clear();
  traced_.assign(traced.size(), {});
  if (traced.empty()) return;
  place_of_.assign(static_cast<std::size_t>(num_rows), -1);
  for (std::size_t i = 0; i < traced.size(); ++i) {
    place_of_[static_cast<std::size_t>(traced[i])] = static_cast<std::int64_t>(i);
    traced_[i].resize(static_cast<std::size_t>(num_layers_));
  }
}

void RouteTracer::see(const std::string& path, const nn::Rows& rows, const routing::RoutingDecision& decision) {
  if (place_of_.empty()) return;
  const auto layer = layer_of_path(path);
  if (layer < 0 || layer >= num_layers_) return;
  const auto count = decision.index.size(0), k = decision.index.size(1);
  torch::Tensor index, weight;  // on the CPU, once a traced row is found
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = rows.index.defined() ? rows.index[i].item<std::int64_t>() : rows.first_row + i;
    const auto place = row < std::ssize(place_of_) ? place_of_[static_cast<std::size_t>(row)] : -1;
    if (place < 0) continue;
    if (!index.defined()) {
      index = decision.index.to(torch::kCPU).contiguous();
      weight = decision.weight.to(torch::kCPU, torch::kFloat).contiguous();
    }
    const auto* adapters = tensor::raw_data<std::int64_t>(index, "chosen adapters", {count, k});
    const auto* weights = tensor::raw_data<float>(weight, "weights of adapters", {count, k});
    auto& sum = traced_[static_cast<std::size_t>(place)][static_cast<std::size_t>(layer)];
    ++sum.num_maps;
    for (std::int64_t j = i * k; j < (i + 1) * k; ++j) sum.weights.emplace_back(static_cast<std::int32_t>(adapters[j]), weights[j]);
  }
}

std::vector<schedule::LayerRoute> RouteTracer::take(std::int64_t row) const {
  const auto place = row < std::ssize(place_of_) ? place_of_[static_cast<std::size_t>(row)] : -1;
  if (place < 0) return {};
  const auto& layers = traced_[static_cast<std::size_t>(place)];
  if (std::ranges::all_of(layers, [](const LayerSum& layer) { return layer.num_maps == 0; })) return {};
  std::vector<schedule::LayerRoute> route;
  for (const auto& layer : layers) {
    std::map<std::int32_t, float> shares;
    for (const auto& [adapter, weight] : layer.weights) shares[adapter] += weight / static_cast<float>(layer.num_maps);
    schedule::LayerRoute best;
    for (const auto& [adapter, share] : shares) {
      if (best.adapter < 0 || share > best.share) best = {adapter, share};
    }
    route.push_back(best);
  }
  return route;
}

}  // namespace quiver::engine
