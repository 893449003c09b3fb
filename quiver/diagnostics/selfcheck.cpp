#include "quiver/diagnostics/selfcheck.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "quiver/adapters/init.h"
#include "quiver/adapters/lora_update.h"
#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/base/random.h"
#include "quiver/merge/mean.h"
#include "quiver/model/generate.h"
#include "quiver/routing/attach.h"
#include "quiver/train/trainer.h"

namespace quiver::diagnostics {
namespace {

constexpr std::int64_t kVocab = 97;

model::Model tiny_model() {
  model::ModelSpec spec;
  spec.name = "selfcheck";
  spec.family = "llama";
  spec.vocab_size = kVocab;
  spec.hidden_size = 48;
  spec.layers.resize(2);
  spec.max_positions = 256;
  spec.tie_word_embeddings = true;
  spec.block.attention = {.num_heads = 4, .num_kv_heads = 2, .head_dim = 12};
  spec.block.mlp = {.intermediate_size = 80};
  spec.ropes = {{.rotary_dim = 12}};
  tensor::TensorMap weights;
  const auto add = [&](const std::string& name, torch::IntArrayRef shape, double bound, double shift = 0) {
    RandomStream random(7, "selfcheck/" + name);
    weights.emplace(name, tensor::uniform(shape, bound, random) + shift);
  };
  add("embed_tokens.weight", {kVocab, 48}, 1.0);
  add("norm.weight", {48}, 0.2, 1);
  for (const char* layer : {"layers.0.", "layers.1."}) {
    const std::string prefix = layer;
    add(prefix + "self_attn.q_proj.weight", {48, 48}, 0.3);
    add(prefix + "self_attn.k_proj.weight", {24, 48}, 0.3);
    add(prefix + "self_attn.v_proj.weight", {24, 48}, 0.3);
    add(prefix + "self_attn.o_proj.weight", {48, 48}, 0.3);
    add(prefix + "mlp.gate_proj.weight", {80, 48}, 0.3);
    add(prefix + "mlp.up_proj.weight", {80, 48}, 0.3);
    add(prefix + "mlp.down_proj.weight", {48, 80}, 0.3);
    add(prefix + "input_layernorm.weight", {48}, 0.2, 1);
    add(prefix + "post_attention_layernorm.weight", {48}, 0.2, 1);
  }
  return model::Model(spec, weights, {torch::kCPU, torch::kFloat}, {"selfcheck", model::weights_hash(weights)});
}

/// A task that can be learned: after a common instruction, the answer repeats the last input token, shifted.
std::vector<forest::Sequence> toy_task(const std::string& name, std::int32_t shift) {
  RandomStream random(7, "toy/" + name);
  std::vector<std::int32_t> instruction;
  for (int i = 0; i < 9; ++i) instruction.push_back(static_cast<std::int32_t>(random.below(kVocab)));
  std::vector<forest::Sequence> examples;
  for (int e = 0; e < 24; ++e) {
    auto tokens = instruction;
    for (std::uint64_t i = 0, n = 1 + random.below(5); i < n; ++i) tokens.push_back(static_cast<std::int32_t>(random.below(kVocab)));
    tokens.push_back((tokens.back() + shift) % static_cast<std::int32_t>(kVocab));
    tokens.push_back(0);
    examples.push_back({tokens, 2});
  }
  return examples;
}

torch::Tensor hidden_of(const model::Model& model, const forest::ForestBatch& batch) {
  const torch::NoGradGuard no_grad;
  std::vector<std::int64_t> rows;
  for (const auto& target : batch.targets) rows.push_back(target.row);
  return model::hidden_of(model, model::forest_rows(batch.forest), rows);
}

double largest(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

class Checker {
 public:
  SelfCheckResult run() {
    const auto base = tiny_model();
    const auto examples = toy_task("a", 3);
    check_forest(base, examples);
    const auto first = train(base, "a", examples), second = train(base, "b", toy_task("b", 11));
    check_merge(base, first, examples);
    check_routing(base, {first, second}, examples);
    result_.signature = sha256_hex(result_.behaviour.dump()).substr(0, 16);
    return std::move(result_);
  }

 private:
  void add(const std::string& what, double difference, double bound) {
    result_.checks.push_back({what, std::isfinite(difference) && difference <= bound, difference});
  }

  void check_forest(const model::Model& base, const std::vector<forest::Sequence>& examples) {
    const auto shared = forest::build_batch(examples), plain = forest::build_batch(examples, {.share_prefixes = false});
    add("a forest of shared prefixes computes what its examples compute alone", largest(hidden_of(base, shared), hidden_of(base, plain)),
        1e-4);
    result_.behaviour["forest_rows"] = shared.forest.num_rows();
    const std::vector<std::vector<std::int32_t>> prompts = {{1, 2, 3}, {1, 2, 3, 4, 5, 6}};
    result_.behaviour["greedy"] = model::generate(base, prompts, {.max_new_tokens = 8});
  }

  adapters::LoraAdapter train(const model::Model& base, const std::string& name, const std::vector<forest::Sequence>& examples) {
    train::TrainOptions options{.epochs = 12, .batch_size = 8};
    options.optimizer.learning_rate = 2e-2;
    train::Trainer trainer(base, adapters::initial_adapter(name, {}, base.linears(), 7), examples, options);
    while (!trainer.is_done()) trainer.run_step();
    const auto& losses = trainer.stats().losses;
    result_.checks.push_back(
        {"training '" + name + "' lowers the loss by a third", losses.back() < losses.front() * 2 / 3, losses.back() / losses.front()});
    result_.behaviour["losses"][name] = {std::round(losses.front() * 100) / 100, std::round(losses.back() * 10) / 10};
    return trainer.adapter();
  }

  void check_merge(const model::Model& base, const adapters::LoraAdapter& adapter, const std::vector<forest::Sequence>& examples) {
    const auto batch = forest::build_batch(examples);
    const auto attached = hidden_of(base.with_linears(adapters::attach(base.linears(), adapter)), batch);
    auto merged = base.linears();
    for (const auto& [path, pair] : adapter.pairs) {
      merged[path] = nn::Linear(adapters::merged_weight(merged[path].weight().dense(), pair));
    }
    add("an adapter merged into the weights computes what it computes beside them",
        largest(attached, hidden_of(base.with_linears(merged), batch)), 1e-3);
    auto routed = base.linears();
    routing::attach_routed(routed, std::span(&adapter, 1), {.top_k = 1}, routing::Combine::kParams);
    add("Arrow over a library of one computes that adapter", largest(attached, hidden_of(base.with_linears(routed), batch)), 1e-3);
  }

  void check_routing(const model::Model& base, const std::vector<adapters::LoraAdapter>& adapters,
                     const std::vector<forest::Sequence>& examples) {
    routing::RoutingRecorder recorder;
    auto routed = base.linears();
    recorder.set_tag("a");
    routing::attach_routed(routed, adapters, {.top_k = 1}, routing::Combine::kOutputs, &recorder);
    hidden_of(base.with_linears(routed), forest::build_batch(examples));
    std::int64_t tokens = 0, chosen = 0;
    const auto by_tag = recorder.usage();
    for (const auto& [path, usage] : by_tag.at("a")) {
      tokens += usage.num_tokens;
      for (const auto count : usage.choices) chosen += count;
    }
    add("every token chooses exactly one of two adapters", std::abs(static_cast<double>(tokens - chosen)), 0);
    result_.behaviour["routed_tokens"] = tokens;
  }

  SelfCheckResult result_;
};

}  // namespace

bool SelfCheckResult::passed() const {
  return std::ranges::all_of(checks, [](const SelfCheck& check) { return check.passed; });
}

SelfCheckResult selfcheck() { return Checker().run(); }

}  // namespace quiver::diagnostics
