#include "quiver/routing/recorder.h"

#include <torch/utils.h>

#include <cmath>
#include <utility>

#include "quiver/tensor/raw_data.h"

namespace quiver::routing {

namespace {

/// To a multiple of 2^-32, so that sums are exact: they do not depend on which thread adds its rows first.
double rounded(double x) { return std::nearbyint(std::ldexp(x, 32)) / 4294967296.0; }

}  // namespace

void RoutingRecorder::set_tag(std::string tag) {
  const std::lock_guard lock(mutex_);
  tag_ = std::move(tag);
}

void RoutingRecorder::record(const std::string& path, std::int64_t num_adapters, const RoutingDecision& decision) {
  const auto index = decision.index.to(torch::kCPU).contiguous();
  const auto weight = decision.weight.to(torch::kCPU, torch::kFloat).contiguous();
  RoutingUsage seen;
  seen.weight.resize(static_cast<std::size_t>(num_adapters), 0);
  seen.choices.resize(static_cast<std::size_t>(num_adapters), 0);
  seen.num_tokens = index.size(0);
  const auto* indices = tensor::raw_data<std::int64_t>(index, "index of a decision", index.sizes());
  const auto* weights = tensor::raw_data<float>(weight, "weight of a decision", index.sizes());
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    const double w = rounded(weights[i]);
    seen.weight.at(static_cast<std::size_t>(indices[i])) += w;
    seen.choices.at(static_cast<std::size_t>(indices[i])) += 1;
    if (w > 0) seen.entropy -= rounded(w * std::log(w));
  }

  const std::lock_guard lock(mutex_);
  auto& total = usage_[tag_][path];
  total.weight.resize(seen.weight.size(), 0);
  total.choices.resize(seen.choices.size(), 0);
  for (std::size_t n = 0; n < seen.weight.size(); ++n) {
    total.weight[n] += seen.weight[n];
    total.choices[n] += seen.choices[n];
  }
  total.entropy += seen.entropy;
  total.num_tokens += seen.num_tokens;
}

std::map<std::string, std::map<std::string, RoutingUsage>> RoutingRecorder::usage() const {
  const std::lock_guard lock(mutex_);
  return usage_;
}

void RoutingRecorder::clear() {
  const std::lock_guard lock(mutex_);
  usage_.clear();
}

RecordingRouter::RecordingRouter(RouterPtr router, std::string path, RoutingRecorder* recorder)
    : router_(std::move(router)), path_(std::move(path)), recorder_(recorder) {}

RoutingDecision RecordingRouter::decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  auto decision = router_->route(x, groups);
  recorder_->record(path_, num_adapters(), decision);
  return decision;
}

}  // namespace quiver::routing
