#include "quiver/model/gguf_export.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/model/checkpoint.h"
#include "quiver/model/families.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

using io::GgufMetadata, io::GgufSource, io::GgufType;

/// Sets keys that begin with the architecture.
class Keys {
 public:
  Keys(GgufMetadata& metadata, std::string architecture) : metadata_(metadata), prefix_(std::move(architecture) + ".") {}

  void set(const char* name, std::int64_t value) { metadata_[prefix_ + name] = value; }
  void set(const char* name, double value) { metadata_[prefix_ + name] = value; }
  void set(const char* name, bool value) { metadata_[prefix_ + name] = value; }
  void set(const char* name, const char* value) { metadata_[prefix_ + name] = std::string(value); }
  void set(const char* name, std::vector<bool> value) { metadata_[prefix_ + name] = std::move(value); }

 private:
  GgufMetadata& metadata_;
  std::string prefix_;
};

void add_rope(Keys& keys, const RopeSpec& rope) {
  keys.set("rope.dimension_count", rope.rotary_dim);
  keys.set("rope.freq_base", rope.theta);
  switch (rope.type) {
    case RopeSpec::Type::kDefault:
    case RopeSpec::Type::kLlama3: break;  // kLlama3: a tensor
    case RopeSpec::Type::kLinear:
      keys.set("rope.scaling.type", "linear");
      keys.set("rope.scaling.factor", rope.factor);
      break;
    case RopeSpec::Type::kYarn:
      if (!rope.truncate) fail(ErrorKind::kUnsupported, "GGUF files hold no yarn with truncate=false");
      keys.set("rope.scaling.type", "yarn");
      keys.set("rope.scaling.factor", rope.factor);
      keys.set("rope.scaling.original_context_length", static_cast<std::int64_t>(rope.original_context));
      keys.set("rope.scaling.yarn_attn_factor", rope.attention_factor);
      keys.set("rope.scaling.yarn_beta_fast", rope.beta_fast);
      keys.set("rope.scaling.yarn_beta_slow", rope.beta_slow);
      break;
    case RopeSpec::Type::kDivided:
      if (rope.long_divisors.empty()) break;
      keys.set("rope.scaling.original_context_length", static_cast<std::int64_t>(rope.original_context));
      keys.set("rope.scaling.attn_factor", rope.attention_factor);
      break;
  }
}

bool has_windows_in_gguf(const ModelSpec& spec) { return spec.family == "gemma2" || spec.family == "gemma3_text" || spec.family == "phi3"; }

/// llama.cpp loads no model of these architectures whose head is the embedding: the embedding is written twice.
bool needs_output_in_gguf(const ModelSpec& spec) {
  constexpr std::string_view kFamilies[] = {"olmo2", "phi", "gpt_neox", "stablelm"};
  return std::ranges::find(kFamilies, spec.family) != std::end(kFamilies);
}

/// One window for the layers that have one, and which these are unless all have it.
void add_windows(Keys& keys, const ModelSpec& spec) {
  if (!has_windows_in_gguf(spec)) return;
  std::int64_t window = 0;
  std::vector<bool> has_window;
  for (const auto& layer : spec.layers) {
    if (layer.window > 0 && window > 0 && layer.window != window)
      fail(ErrorKind::kUnsupported, "GGUF files hold one window; the model has {} and {}", window, layer.window);
    window = std::max(window, layer.window);
    has_window.push_back(layer.window > 0);
  }
  if (window == 0) return;
  keys.set("attention.sliding_window", window);
  if (std::ranges::find(has_window, false) != has_window.end()) keys.set("attention.sliding_window_pattern", has_window);
}

/// The rotations that the reader gives to layers without a key for them.
void check_ropes(const ModelSpec& spec) {
  const bool skips = spec.family == "smollm3";
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const bool is_still = spec.layers[i].rope == kNoRope;
    if (!spec.ropes.empty() && is_still != (skips && i % 4 == 3)) {
      fail(ErrorKind::kUnsupported, "a GGUF file does not tell which layers rotate: layer {} of '{}' is not as those of its architecture",
           i, spec.name);
    }
  }
}

void add_attention(Keys& keys, const ModelSpec& spec) {
  const auto& attention = spec.block.attention;
  const bool is_rms = spec.block.norm.kind == NormSpec::Kind::kRms;
  keys.set("attention.head_count", attention.num_heads);
  keys.set("attention.head_count_kv", attention.num_kv_heads);
  keys.set("attention.key_length", attention.head_dim);
  keys.set("attention.value_length", attention.head_dim);
  keys.set(is_rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", spec.block.norm.epsilon);
  if (attention.scale) keys.set("attention.scale", *attention.scale);
  if (attention.cap != 0 || spec.family == "gemma2") keys.set("attn_logit_softcapping", attention.cap);
  add_windows(keys, spec);
}

/// Factors of single frequencies: those of a file, or of Llama 3 those that make its frequencies.
std::vector<double> divisors_of(const RopeSpec& rope, std::int64_t max_positions) {
  if (rope.type == RopeSpec::Type::kDivided) return rope.divisors;
  if (rope.type != RopeSpec::Type::kLlama3) return {};
  const auto plain = rope_frequencies({.theta = rope.theta, .rotary_dim = rope.rotary_dim}, max_positions);
  auto divisors = rope_frequencies(rope, max_positions);
  for (std::size_t i = 0; i < divisors.size(); ++i) divisors[i] = plain[i] / divisors[i];
  return divisors;
}

}  // namespace

ModelSpec gguf_form(const ModelSpec& spec) {
  auto form = spec;
  if (form.family == "mistral") form.family = "llama";
  if (family_of(form).gguf_architecture == nullptr)
    fail(ErrorKind::kUnsupported, "llama.cpp has no architecture for models of family '{}': no GGUF file is written", spec.family);
  return form;
}

std::string gguf_architecture(const ModelSpec& spec) { return family_of(gguf_form(spec)).gguf_architecture; }

GgufMetadata gguf_description(const ModelSpec& given) {
  const auto spec = gguf_form(given);
  const auto architecture = gguf_architecture(spec);
  GgufMetadata metadata = {{"general.architecture", architecture}, {"general.type", "model"}};
  if (!spec.name.empty()) metadata["general.name"] = spec.name;
  Keys keys(metadata, architecture);
  keys.set("vocab_size", spec.vocab_size);
  keys.set("context_length", spec.max_positions);
  keys.set("embedding_length", spec.hidden_size);
  keys.set("block_count", spec.num_layers());
  keys.set("feed_forward_length", spec.block.mlp.intermediate_size);
  add_attention(keys, spec);
  check_ropes(spec);
  if (!spec.ropes.empty()) add_rope(keys, spec.ropes.front());
  if (spec.ropes.size() > 1) {
    if (spec.ropes[1].type != RopeSpec::Type::kDefault)
      fail(ErrorKind::kUnsupported, "GGUF files hold no scaling of the rotation of layers with a window");
    keys.set("rope.freq_base_swa", spec.ropes[1].theta);
  }
  if (spec.edges.logit_cap != 0 || spec.family == "gemma2") keys.set("final_logit_softcapping", spec.edges.logit_cap);
  if (spec.family == "granite") {
    keys.set("embedding_scale", spec.edges.embedding_scale);
    keys.set("residual_scale", spec.block.residual_scale);
    keys.set("logit_scale", spec.edges.logit_divisor);
    if (!spec.block.attention.scale) keys.set("attention.scale", spec.block.attention.score_scale());
  }
  if (spec.family == "gpt_neox") keys.set("use_parallel_residual", spec.block.topology == Topology::kParallel);
  return metadata;
}

std::string lost_in_gguf(const ModelSpec& spec) {
  std::int64_t window = 0;
  for (const auto& layer : spec.layers) window = std::max(window, layer.window);
  if (window == 0 || window >= spec.max_positions || has_windows_in_gguf(spec)) return {};
  return format("a GGUF file of architecture '{}' holds no attention window: texts above {} tokens are attended to whole, unlike in '{}'",
                gguf_architecture(spec), window, spec.name);
}

GgufSource gguf_source(const std::string& name, const torch::Tensor& values, GgufType type) {
  const auto shape = values.sizes().vec();
  const auto layout = io::find_block_layout(type);
  if (shape.empty() || shape.back() % layout->num_values != 0) type = GgufType::kF16;
  return {name, type, shape, [values, type] {
            const auto plain = values.detach().to(torch::kCPU, torch::kFloat).contiguous();
            return io::quantise(tensor::elements<float>(plain, "a tensor of a GGUF file"), type);
          }};
}

std::vector<GgufSource> gguf_tensors(const ModelSpec& given, const tensor::TensorMap& weights, GgufType type) {
  const auto spec = gguf_form(given);
  std::vector<GgufSource> sources;
  std::size_t used = 0;
  for (const auto& slot : gguf_slots(spec)) {
    for (const char* kind : {".weight", ".bias"}) {
      const auto found = weights.find(slot.name + kind);
      if (found == weights.end()) continue;
      ++used;
      const bool is_vector = found->second.dim() == 1;
      const bool is_norm = is_vector && std::string_view(kind) == ".weight";
      const auto values = is_norm ? found->second + spec.block.norm.offset : to_gguf_rows(slot, found->second, spec.name);
      sources.push_back(gguf_source(slot.gguf + kind, values, is_vector ? GgufType::kF32 : type));
    }
  }
  if (used != weights.size())
    fail(ErrorKind::kInternal, "{} weights of '{}' have no place in a GGUF file", weights.size() - used, spec.name);
  if (!weights.contains(spec.names.head + std::string(".weight")) && needs_output_in_gguf(spec)) {
    sources.push_back(gguf_source("output.weight", weights.at(spec.names.embedding + std::string(".weight")), type));
  }
  const auto add_factors = [&](const char* name, const std::vector<double>& factors) {
    if (!factors.empty()) sources.push_back(gguf_source(name, torch::tensor(factors, torch::kDouble), GgufType::kF32));
  };
  if (spec.ropes.empty()) return sources;
  const auto& rope = spec.ropes.front();
  const bool has_two = !rope.long_divisors.empty();
  add_factors("rope_factors_long.weight", rope.long_divisors);
  add_factors(has_two ? "rope_factors_short.weight" : "rope_freqs.weight", divisors_of(rope, spec.max_positions));
  return sources;
}

}  // namespace quiver::model
