#include "quiver/model/sampler.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {

void check_sampler(const SamplerOptions& options) {
  if (!(options.temperature >= 0)) fail(ErrorKind::kUsage, "temperature is {}; expected 0 or more", options.temperature);
  if (!(options.top_p > 0 && options.top_p <= 1)) fail(ErrorKind::kUsage, "`top_p` is {}; expected above 0 and at most 1", options.top_p);
}

Sampler::Sampler(const SamplerOptions& options)
    : temperature_(options.temperature), top_p_(options.top_p), random_(options.seed, options.stream) {
  check_sampler(options);
}

std::int32_t Sampler::choose(const torch::Tensor& logits) {
  if (is_greedy()) return static_cast<std::int32_t>(logits.argmax().item<std::int64_t>());
  const auto probabilities = (logits.to(torch::kDouble) / temperature_).softmax(0);
  if (top_p_ == 1) {  // nothing is cut, so nothing need be sorted
    const auto p = tensor::elements<double>(probabilities, "probabilities");
    double point = random_.uniform();
    std::size_t id = 0;
    while (id + 1 < p.size() && (point -= p[id]) >= 0) ++id;
    return static_cast<std::int32_t>(id);
  }
  const auto [sorted, order] = probabilities.sort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
  const auto p = tensor::elements<double>(sorted, "sorted probabilities");
  const auto id = tensor::elements<std::int64_t>(order, "order of the probabilities");
  std::size_t kept = 0;
  double total = 0;
  while (kept < p.size() && (kept == 0 || total < top_p_)) total += p[kept++];
  double point = random_.uniform() * total;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    point -= p[i];
    if (point < 0) return static_cast<std::int32_t>(id[i]);
  }
  return static_cast<std::int32_t>(id[kept - 1]);
}

}  // namespace quiver::model
