// LoGo: the norms of the updates at the prompt's last token.
#include <torch/utils.h>

#include "quiver/methods/parts.h"
#include "quiver/routing/directions.h"

namespace quiver::methods {
namespace {

using LogoOptions = OptionsOf<TopK<4>, MixesOutputs>;

RoutedAdapters make_logo(const LibraryContext& in, const LogoOptions& options) {
  const Scoring scoring{.vectors = routing::stacked_directions(in.adapters, 0, 1), .rule = {}};
  const auto top_k = options.top_k_of(in.adapters.size());
  const auto rows = [base = in.base.lm, scoring, top_k, names = in.names()](std::span<const Prompt> prompts, Progress& progress) {
    const auto summary = observe_scores(base, prompts, scoring, progress);
    check_finite(summary.last, summary.paths, names);
    return keep_top(summary.last.mean(1), top_k, in_proportion);
  };
  return route_by_prompt(in, options.combine, top_k, rows);
}

}  // namespace

Method logo() {
  return method_row(
      Family::kPrompt,
      {"logo", "LoGo", "the top k norms of the updates at the prompt's last token, in proportion", "LoGo 2025, arXiv 2511.07129"},
      make_logo);
}

}  // namespace quiver::methods
