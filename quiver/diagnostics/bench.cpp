#include "quiver/diagnostics/bench.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

#include "quiver/adapters/init.h"
#include "quiver/backend/attention.h"
#include "quiver/backend/cpu/huge_pages.h"
#include "quiver/base/error.h"
#include "quiver/base/memory.h"
#include "quiver/base/random.h"
#include "quiver/methods/parts.h"
#include "quiver/model/decoder.h"
#include "quiver/routing/arrow.h"
#include "quiver/routing/attach.h"
#include "quiver/routing/directions.h"
#include "quiver/routing/score_router.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/train/trainer.h"

namespace quiver::diagnostics {
namespace {

using nlohmann::json;

/// Seconds of `runs` runs, after one that is not counted.
template <typename F>
std::vector<double> time_runs(std::int64_t runs, F run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  run();
  for (std::int64_t i = 0; i < runs; ++i) {
    const auto start = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::ranges::sort(seconds);
  return seconds;
}

double median(const std::vector<double>& sorted) { return sorted[sorted.size() / 2]; }

json spread(const std::vector<double>& sorted) {
  return {{"median", median(sorted)}, {"low", sorted[sorted.size() / 4]}, {"high", sorted[sorted.size() * 3 / 4]}, {"runs", sorted.size()}};
}

void wait_for(const torch::Tensor& t) {
  if (t.is_cuda()) t.flatten()[0].item<float>();
}

const char* dtype_name(tensor::Placement placement) { return c10::toString(placement.dtype); }

json rated(json result, const std::vector<double>& seconds, double operations) {
  result["seconds"] = spread(seconds);
  result["gflops"] = operations / median(seconds) / 1e9;
  return result;
}

void compare_with_gemm(json& result, double gemm_gflops) {
  result["gemm_gflops"] = gemm_gflops;
  result["of_gemm"] = result["gflops"].get<double>() / gemm_gflops;
}

/// Pairs of a query and a key it sees.
double num_pairs(const backend::AttentionPlan& plan) {
  double pairs = 0;
  for (const auto& block : plan.blocks) {
    const auto length = static_cast<double>(block.length);
    pairs += length * static_cast<double>(block.num_visible) + length * (length + 1) / 2;
  }
  return pairs;
}

std::vector<std::int32_t> random_tokens(std::int64_t count, std::int64_t vocab_size, RandomStream& random) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab_size))));
  return tokens;
}

std::vector<forest::Sequence> random_batch(const TrainingBench& bench, std::int64_t vocab_size) {
  RandomStream random(42, "bench");
  const auto prefix = random_tokens(bench.shared, vocab_size, random);
  std::vector<forest::Sequence> sequences;
  for (std::int64_t i = 0; i < bench.batch_size; ++i) {
    auto tokens = prefix;
    const auto rest = random_tokens(bench.length - bench.shared, vocab_size, random);
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    sequences.push_back({tokens, bench.num_targets});
  }
  return sequences;
}

}  // namespace

json bench_gemm(tensor::Placement placement, std::int64_t rows) {
  const torch::InferenceMode inference;
  const auto options = torch::TensorOptions().device(placement.device).dtype(placement.dtype);
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{576, 576}, {1536, 576}, {576, 1536}};  // [n, k] of SmolLM2-135M
  json list = json::array();
  double operations = 0, seconds = 0;
  for (const auto& [n, k] : shapes) {
    const auto x = torch::randn({rows, k}, options), w = torch::randn({n, k}, options);
    const auto runs = time_runs(25, [&, &w = w] { wait_for(torch::linear(x, w)); });
    const double of_shape = 2.0 * static_cast<double>(rows * n * k);
    list.push_back(rated({{"m", rows}, {"n", n}, {"k", k}}, runs, of_shape));
    operations += of_shape;
    seconds += median(runs);
  }
  return {{"dtype", dtype_name(placement)}, {"shapes", list}, {"gflops", operations / seconds / 1e9}};
}

json bench_memory(std::int64_t bytes) {
  typedef std::uint64_t Line __attribute__((vector_size(64)));
  const auto memory = backend::cpu::huge_page_bytes(bytes).fill_(1);
  const auto* lines = reinterpret_cast<const Line*>(tensor::trusted_data<std::uint8_t>(memory));
  std::atomic<std::uint64_t> kept{0};  // so that the sums are computed
  const auto seconds = time_runs(25, [&] {
    at::parallel_for(0, bytes / 64, 1 << 10, [&](std::int64_t begin, std::int64_t end) {
      Line even = {}, odd = {};
      for (auto i = begin; i + 1 < end; i += 2) {
        even += lines[i];
        odd += lines[i + 1];
      }
      kept += (even + odd)[0];
    });
  });
  return {{"bytes", bytes},
          {"threads", at::get_num_threads()},
          {"seconds", spread(seconds)},
          {"gigabytes_per_second", static_cast<double>(bytes) / median(seconds) / 1e9}};
}

json bench_attention(tensor::Placement placement, const AttentionBench& bench) {
  const torch::NoGradGuard no_grad;
  forest::TokenForest forest;
  for (std::int64_t tree = 0; tree < bench.trees; ++tree) {
    const auto root = forest.add_segment(forest::kNoParent, std::vector<std::int32_t>(static_cast<std::size_t>(bench.shared), 0));
    for (std::int64_t c = 0; c < bench.children; ++c) {
      forest.add_segment(root, std::vector<std::int32_t>(static_cast<std::size_t>(bench.length), 0));
    }
  }
  const auto plan = backend::plan_forest(forest);
  const auto options = torch::TensorOptions().device(placement.device).dtype(placement.dtype);
  const auto draw = [&](std::int64_t heads) { return torch::randn({forest.num_rows(), heads, bench.head_dim}, options); };
  const auto q = draw(bench.num_heads), k = draw(bench.num_kv_heads), v = draw(bench.num_kv_heads), dout = draw(bench.num_heads);
  const double scale = 1 / std::sqrt(static_cast<double>(bench.head_dim));
  backend::Attended attended;
  const auto forward = time_runs(25, [&] {
    attended = backend::forest_attention(q, k, v, plan, {scale});
    wait_for(attended.out);
  });
  const auto backward = time_runs(25, [&] { wait_for(backend::forest_attention_gradient(dout, q, k, v, attended, plan, {scale}).q); });
  const double unit = num_pairs(*plan) * static_cast<double>(bench.num_heads * bench.head_dim);
  json result = {{"dtype", dtype_name(placement)},
                 {"shapes",
                  {{"trees", bench.trees},
                   {"shared", bench.shared},
                   {"children", bench.children},
                   {"length", bench.length},
                   {"rows", forest.num_rows()},
                   {"heads", bench.num_heads},
                   {"kv_heads", bench.num_kv_heads},
                   {"head_dim", bench.head_dim}}},
                 {"forward", rated({}, forward, 4 * unit)},
                 {"backward", rated({}, backward, 10 * unit)}};
  const auto gemm = bench_gemm(placement, 2048).at("gflops").get<double>();
  compare_with_gemm(result["forward"], gemm);
  compare_with_gemm(result["backward"], gemm);
  return result;
}

/// Pairs of a query and a key that it sees, of all layers, in a batch whose sequences share `bench.shared` tokens.
double attended_pairs(const model::ModelSpec& spec, const TrainingBench& bench) {
  double pairs = 0;
  for (const auto& layer : spec.layers) {
    const auto window = layer.window > 0 ? layer.window : bench.length;
    double shared = 0, own = 0;
    for (std::int64_t i = 0; i < bench.length; ++i) (i < bench.shared ? shared : own) += static_cast<double>(std::min(i + 1, window));
    pairs += shared + own * static_cast<double>(bench.batch_size);
  }
  return pairs;
}

json bench_training(const model::Model& base, const TrainingBench& bench) {
  if (bench.shared >= bench.length || bench.num_targets >= bench.length) {
    fail(ErrorKind::kUsage, "sequences of {} tokens cannot have {} in common and {} labels; expected fewer", bench.length, bench.shared,
         bench.num_targets);
  }
  const auto gemm = bench_gemm(base.placement(), 2048).at("gflops").get<double>();
  const auto targets = bench.target_modules.empty() ? model::attention_targets(base.spec()) : bench.target_modules;
  const auto initial = adapters::initial_adapter("bench", {.rank = bench.rank, .target_modules = targets}, base.linears(), 42);
  train::TrainOptions options{.epochs = bench.steps + 1,
                              .batch_size = bench.batch_size,
                              .share_prefixes = bench.shared > 0,
                              .checkpoint_activations = bench.checkpoint_activations};
  train::Trainer trainer(base, initial, random_batch(bench, base.spec().vocab_size), options);
  const auto seconds = time_runs(bench.steps, [&] { trainer.run_step(); });

  const auto steps = static_cast<double>(trainer.step());
  const double rows = static_cast<double>(trainer.stats().rows) / steps, tokens = static_cast<double>(trainer.stats().tokens) / steps;
  double body = 0;
  for (const auto& [path, linear] : base.linears()) {
    body += static_cast<double>(linear.in_features() * linear.out_features());
  }
  const double head = static_cast<double>(base.head().linear.in_features() * base.head().linear.out_features());
  const double labels = static_cast<double>(bench.batch_size * bench.num_targets);
  auto result = rated({{"dtype", dtype_name(base.placement())},
                       {"model", base.spec().name},
                       {"shapes",
                        {{"batch_size", bench.batch_size},
                         {"length", bench.length},
                         {"shared", bench.shared},
                         {"labels", bench.num_targets},
                         {"rank", bench.rank},
                         {"target_modules", targets},
                         {"checkpoint_activations", bench.checkpoint_activations}}}},
                      seconds, 4 * (body * rows + head * labels));
  compare_with_gemm(result, gemm);
  const double attention = 14 * attended_pairs(base.spec(), bench) *
                           static_cast<double>(base.spec().block.attention.num_heads * base.spec().block.attention.head_dim);
  result["gflops_with_attention"] = result.at("gflops").get<double>() * (1 + attention / (4 * (body * rows + head * labels)));
  result["tokens_per_second"] = tokens / median(seconds);
  result["rows_per_second"] = rows / median(seconds);
  if (const auto peak = peak_memory()) result["peak_bytes"] = *peak;
  return result;
}

json bench_routing(const model::Model& base, const RoutingBench& bench) {
  if (bench.top_k > bench.num_adapters)
    fail(ErrorKind::kUsage, "`top_k` {} of {} adapters; expected 1 to {}", bench.top_k, bench.num_adapters, bench.num_adapters);
  std::vector<adapters::LoraAdapter> adapters;
  for (std::int64_t n = 0; n < bench.num_adapters; ++n) {
    const auto name = format("a{}", n);
    adapters.push_back(adapters::initial_adapter(name, {.rank = bench.rank}, base.linears(), derive_seed(42, name)));
    for (auto& [path, pair] : adapters.back().pairs) {
      RandomStream random(42, name + "/" + path);
      pair = adapters::LoraPair(pair.lora_a(), tensor::uniform(pair.lora_b().sizes(), 0.01, random), pair.alpha())
                 .to(base.placement().device, torch::kFloat);
    }
  }
  std::map<std::string, routing::RouterPtr> arrow, lag;
  for (const auto& [path, prototypes] : routing::prototypes(adapters)) {
    arrow.emplace(path, std::make_shared<routing::ArrowRouter>(prototypes, routing::ArrowOptions{.top_k = bench.top_k}));
  }
  const auto shortlist = std::min<std::int64_t>(methods::Shortlist().shortlist, bench.num_adapters);
  for (const auto& [path, vectors] : routing::stacked_directions(adapters, 0, 0)) {
    lag.emplace(path, std::make_shared<routing::ScoreRouter>(vectors, routing::ScoreOptions{.top_k = 1, .shortlist = shortlist}));
  }
  std::vector<model::Model> models = {base};
  const auto add = [&](const std::map<std::string, routing::RouterPtr>& routers, routing::Combine combine) {
    auto projections = base.linears();
    routing::attach_routers(projections, adapters, routers, combine);
    models.push_back(base.with_linears(std::move(projections)));
  };
  add(arrow, routing::Combine::kParams);
  add(arrow, routing::Combine::kOutputs);
  add(lag, routing::Combine::kOutputs);
  const auto sequences = random_batch({.batch_size = bench.batch_size, .length = bench.length}, base.spec().vocab_size);
  const auto batch = forest::build_batch(sequences);
  const auto rows = model::forest_rows(batch.forest);
  const auto targets = train::loss_targets(batch, train::LossMean::kTokens);
  std::vector<std::vector<double>> seconds(models.size());
  for (std::int64_t round = 0; round <= bench.rounds; ++round) {
    for (std::size_t m = 0; m < models.size(); ++m) {
      const auto start = std::chrono::steady_clock::now();
      model::loss_of(models[m], rows, targets);
      if (round > 0) seconds[m].push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  json result = {{"dtype", dtype_name(base.placement())},
                 {"model", base.spec().name},
                 {"shapes",
                  {{"adapters", bench.num_adapters},
                   {"rank", bench.rank},
                   {"top_k", bench.top_k},
                   {"batch_size", bench.batch_size},
                   {"length", bench.length}}}};
  const char* names[] = {"base", "params", "outputs", "lag"};
  for (std::size_t m = 0; m < models.size(); ++m) {
    std::ranges::sort(seconds[m]);
    result[names[m]] = spread(seconds[m]);
    if (m > 0) result["over_base"][names[m]] = median(seconds[m]) / median(seconds[0]);
  }
  return result;
}

}  // namespace quiver::diagnostics
