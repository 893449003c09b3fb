// Arrow, giving way to the mean of all adapters where it is undecided.
#include "quiver/merge/mean.h"
#include "quiver/methods/parts.h"
#include "quiver/routing/group_router.h"

namespace quiver::methods {
namespace {

struct ArrowMeanOptions : ArrowChoice {
  routing::Fallback fallback = routing::Fallback::kEntropy;
  double fallback_strength = 1;
  static void describe(auto& schema) {
    using routing::Fallback;
    OptionsOf<TopK<4>, Softmax, Ties>::describe(schema);
    schema.add_words(&ArrowMeanOptions::fallback, "fallback",
                     {{"constant", Fallback::kConstant}, {"entropy", Fallback::kEntropy}, {"margin", Fallback::kMargin}},
                     {.help = "when it gives way: always, by the entropy of the weights, or by their margin"});
    schema.add(&ArrowMeanOptions::fallback_strength, "fallback_strength",
               {.help = "the constant share, or the power of entropy and margin", .range = at_least(0)});
  }
  ArrowMeanOptions() { combine = routing::Combine::kOutputs; }  // factors of the mean do not mix with those it was made of
};

RoutedAdapters make_arrow_mean(const LibraryContext& in, const ArrowMeanOptions& options) {
  auto routed = make_arrow(in, options);
  routed.adapters.push_back(merge::mean_of_factors(in.adapters));
  const routing::FallbackOptions fallback{.by = options.fallback, .strength = options.fallback_strength};
  for (auto& [path, router] : routed.routers) router = std::make_shared<routing::FallbackRouter>(router, fallback);
  return routed;
}

}  // namespace

Method arrow_mean() {
  return method_row(Family::kToken, {"arrow-mean", "Arrow mean", "Arrow, giving way to the mean where it is undecided", "Quiver"},
                    make_arrow_mean);
}

}  // namespace quiver::methods
