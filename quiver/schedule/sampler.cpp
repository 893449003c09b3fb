#include "quiver/schedule/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::schedule {
namespace {

void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) fail(ErrorKind::kUsage, "{} is {}; expected {} to {}", name, value, low, high);
}

bool leaves_logits(const SamplerOptions& options) {
  return options.repetition_penalty == 1 && options.frequency_penalty == 0 && options.presence_penalty == 0 && options.logit_bias.empty();
}

std::int32_t largest(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// exp((z_v - max z) / temperature), which sum to `sum`.
struct Weights {
  std::vector<double> of;
  double sum = 0;
};

Weights weights_of(std::span<const float> logits, double temperature) {
  Weights weights{std::vector<double>(logits.size())};
  const double highest = *std::ranges::max_element(logits);
  for (std::size_t v = 0; v < logits.size(); ++v) {
    weights.of[v] = std::exp((logits[v] - highest) / temperature);
    weights.sum += weights.of[v];
  }
  return weights;
}

/// The tokens that are left, the likeliest first, of equals the lower id. Sorts no more of them than it must.
std::vector<std::int32_t> kept_tokens(const Weights& weights, const SamplerOptions& options) {
  const auto size = weights.of.size();
  std::vector<std::int32_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  const auto is_before = [&](std::int32_t a, std::int32_t b) {
    const auto x = weights.of[static_cast<std::size_t>(a)], y = weights.of[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  const auto most = options.top_k > 0 ? std::min(size, static_cast<std::size_t>(options.top_k)) : size;
  std::size_t sorted = 0, kept = 0;
  double total = 0, among = weights.sum;
  for (std::size_t step = 64; kept < most; step *= 4) {
    const auto end = std::min(most, sorted + step);
    std::partial_sort(order.begin() + static_cast<std::ptrdiff_t>(sorted), order.begin() + static_cast<std::ptrdiff_t>(end), order.end(),
                      is_before);
    sorted = end;
    if (options.top_k > 0 && sorted < most) continue;  // the sum over the top_k comes first
    if (options.top_k > 0) {
      among = 0;
      for (std::size_t i = 0; i < most; ++i) among += weights.of[static_cast<std::size_t>(order[i])];
    }
    for (; kept < sorted; ++kept) {
      const double weight = weights.of[static_cast<std::size_t>(order[kept])];
      const bool is_enough = kept > 0 && (total >= options.top_p * among || weight < options.min_p);
      if (is_enough) break;
      total += weight;
    }
    if (kept < sorted) break;
  }
  order.resize(kept);
  return order;
}

}  // namespace

void check_sampler(const SamplerOptions& options) {
  constexpr double kAny = std::numeric_limits<double>::max();
  if (!(options.temperature >= 0)) fail(ErrorKind::kUsage, "temperature is {}; expected 0 or more", options.temperature);
  if (!(options.top_p > 0 && options.top_p <= 1)) fail(ErrorKind::kUsage, "`top_p` is {}; expected above 0 and at most 1", options.top_p);
  if (options.top_k < 0) fail(ErrorKind::kUsage, "top_k is {}; expected 0 (all) or more", options.top_k);
  check_range("min_p", options.min_p, 0, 1);
  if (!(options.repetition_penalty > 0 && options.repetition_penalty <= kAny)) {
    fail(ErrorKind::kUsage, "repetition_penalty is {}; expected above 0", options.repetition_penalty);
  }
  check_range("frequency_penalty", options.frequency_penalty, -kAny, kAny);
  check_range("presence_penalty", options.presence_penalty, -kAny, kAny);
  for (const auto& [token, bias] : options.logit_bias) {
    if (token < 0 || !std::isfinite(bias)) fail(ErrorKind::kUsage, "logit_bias of token {} is {}; expected a finite number", token, bias);
  }
}

Sampler::Sampler(SamplerOptions options, std::span<const std::int32_t> prompt)
    : options_(std::move(options)), is_plain_(leaves_logits(options_)), random_(options_.seed, options_.stream) {
  check_sampler(options_);
  if (options_.repetition_penalty == 1) return;
  for (const auto token : prompt) {
    const auto at = static_cast<std::size_t>(token);
    if (at >= in_prompt_.size()) in_prompt_.resize(at + 1);
    in_prompt_[at] = true;
  }
}

void Sampler::count(std::int32_t token) {
  if (!is_plain_) ++in_answer_[token];
}

void Sampler::penalise(std::vector<float>& logits) const {
  for (const auto& [token, bias] : options_.logit_bias) {
    if (static_cast<std::size_t>(token) < logits.size()) logits[static_cast<std::size_t>(token)] += bias;
  }
  if (options_.repetition_penalty != 1) {
    const auto r = static_cast<float>(options_.repetition_penalty);
    const auto repeat = [&](std::size_t token) { logits[token] = logits[token] > 0 ? logits[token] / r : logits[token] * r; };
    for (std::size_t token = 0; token < std::min(in_prompt_.size(), logits.size()); ++token) {
      if (in_prompt_[token]) repeat(token);
    }
    for (const auto& [token, times] : in_answer_) {
      const auto at = static_cast<std::size_t>(token);
      if (at >= in_prompt_.size() || !in_prompt_[at]) repeat(at);
    }
  }
  for (const auto& [token, times] : in_answer_) {
    logits[static_cast<std::size_t>(token)] -=
        static_cast<float>(options_.frequency_penalty * static_cast<double>(times) + options_.presence_penalty);
  }
}

std::int32_t Sampler::choose(std::span<const float> logits, std::span<const std::int32_t> banned) {
  if (is_plain_ && banned.empty()) return options_.temperature == 0 ? largest(logits) : draw(logits);
  std::vector<float> changed(logits.begin(), logits.end());
  penalise(changed);
  for (const auto token : banned) {
    if (static_cast<std::size_t>(token) < changed.size())
      changed[static_cast<std::size_t>(token)] = -std::numeric_limits<float>::infinity();
  }
  return options_.temperature == 0 ? largest(changed) : draw(changed);
}

std::int32_t Sampler::draw(std::span<const float> logits) {
  const auto weights = weights_of(logits, options_.temperature);
  if (options_.top_p == 1 && options_.top_k == 0 && options_.min_p == 0) {  // nothing is cut, so nothing need be sorted
    double point = random_.uniform() * weights.sum;
    std::size_t id = 0;
    while (id + 1 < weights.of.size() && (point -= weights.of[id]) >= 0) ++id;
    return static_cast<std::int32_t>(id);
  }
  const auto kept = kept_tokens(weights, options_);
  double total = 0;
  for (const auto token : kept) total += weights.of[static_cast<std::size_t>(token)];
  double point = random_.uniform() * total;
  for (std::size_t i = 0; i + 1 < kept.size(); ++i) {
    point -= weights.of[static_cast<std::size_t>(kept[i])];
    if (point < 0) return kept[i];
  }
  return kept.back();
}

}  // namespace quiver::schedule
