// Calibrated Arrow's evidence over the whole prompt.
#include <torch/utils.h>

#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

using PooledOptions = OptionsOf<TopK<1>, MixesOutputs, Softmax, Ties, CalibrationText>;

RoutedAdapters make_pooled_arrow(const LibraryContext& in, const PooledOptions& options) {
  const auto top_k = options.top_k_of(in.adapters.size());
  const auto rows = [evidence = arrow_evidence(in, options, options), top_k, temperature = options.routing_temperature](
                        std::span<const Prompt> prompts, Progress& progress) {
    return keep_top(evidence.of(prompts, progress), top_k, [&](const torch::Tensor& top) { return (top / temperature).softmax(1); });
  };
  return route_by_prompt(in, options.combine, top_k, rows);
}

}  // namespace

Method pooled_arrow() {
  return method_row(Family::kPrompt, {"pooled-arrow", "pooled Arrow", "calibrated Arrow's evidence over the whole prompt, top k", "Quiver"},
                    make_pooled_arrow);
}

}  // namespace quiver::methods
