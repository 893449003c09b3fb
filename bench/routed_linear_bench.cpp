// The overhead of routing over the base projection alone: bfloat16, 576 -> 576 (SmolLM2's q_proj),
// rank 4, top-k 4.
#include <benchmark/benchmark.h>
#include <torch/utils.h>

#include <cmath>
#include <memory>
#include <vector>

#include "quiver/nn/linear.h"
#include "quiver/routing/arrow.h"
#include "quiver/routing/routed_update.h"
#include "quiver/testing/dense_mixture.h"

namespace {

using namespace quiver;

constexpr std::int64_t kWidth = 576;
constexpr std::int64_t kRank = 4;
constexpr std::int64_t kTopK = 4;

struct Setup {
  explicit Setup(std::int64_t num_adapters, std::int64_t num_tokens) {
    auto generator = at::detail::createCPUGenerator(42);
    const double scale = 1 / std::sqrt(static_cast<double>(kWidth));
    base = nn::Linear((torch::randn({kWidth, kWidth}, generator) * scale).to(torch::kBFloat16));
    std::vector<torch::Tensor> prototypes;
    for (std::int64_t i = 0; i < num_adapters; ++i) {
      pairs.emplace_back(torch::randn({kRank, kWidth}, generator) * scale, torch::randn({kWidth, kRank}, generator) * 0.1, 16);
      prototypes.push_back(torch::randn({kWidth}, generator) * scale);
    }
    if (num_adapters > 0) {
      router = std::make_shared<routing::ArrowRouter>(torch::stack(prototypes), routing::ArrowOptions{.top_k = kTopK});
    }
    tokens = torch::randn({num_tokens, kWidth}, generator).to(torch::kBFloat16);
  }
  nn::Linear base;
  std::vector<adapters::LoraPair> pairs;
  routing::RouterPtr router;
  torch::Tensor tokens;
};

void count_tokens(benchmark::State& state, std::int64_t num_tokens) {
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(num_tokens), benchmark::Counter::kIsIterationInvariantRate);
}

void BM_BaseProjection(benchmark::State& state) {
  const c10::InferenceMode guard;
  const Setup setup(0, state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(setup.base.forward(setup.tokens));
  count_tokens(state, state.range(0));
}
BENCHMARK(BM_BaseProjection)->ArgName("tokens")->Arg(1)->Arg(16)->Arg(512)->UseRealTime();

void BM_RoutedUpdate(benchmark::State& state) {
  const c10::InferenceMode guard;
  const Setup setup(state.range(0), state.range(1));
  const auto combine = state.range(2) == 0 ? routing::Combine::kParams : routing::Combine::kOutputs;
  const auto layer = setup.base.with(std::make_shared<routing::RoutedUpdate>(setup.base, setup.pairs, setup.router, combine));
  // A fast wrong answer is not a result: check before timing.
  const auto sample = setup.tokens.narrow(0, 0, std::min<std::int64_t>(8, setup.tokens.size(0)));
  const auto expected =
      quiver::testing::dense_mixture(setup.base.weight().dense(), setup.pairs, setup.router->route(sample), sample, combine);
  if (!torch::allclose(layer.forward(sample).to(torch::kDouble), expected, 2e-2, 2e-2)) {
    return state.SkipWithError("RoutedUpdate disagrees with its definition");
  }
  for (auto _ : state) benchmark::DoNotOptimize(layer.forward(setup.tokens));
  count_tokens(state, state.range(1));
}
BENCHMARK(BM_RoutedUpdate)
    ->ArgNames({"adapters", "tokens", "outputs"})
    ->ArgsProduct({{16, 64, 256}, {1, 16, 512}, {0}})
    ->Args({16, 512, 1})
    ->UseRealTime();

void BM_ArrowRouter(benchmark::State& state) {
  const c10::InferenceMode guard;
  const Setup setup(state.range(0), state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(setup.router->route(setup.tokens));
  count_tokens(state, state.range(1));
}
BENCHMARK(BM_ArrowRouter)->ArgNames({"adapters", "tokens"})->ArgsProduct({{16, 64, 256}, {1, 512}})->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
