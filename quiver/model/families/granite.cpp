// Granite 3: Llama with four multipliers.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

ModelSpec granite_from_json(const nlohmann::json& values, const std::string& origin) {
  const Config config(values, origin);
  auto spec = common_from_json(config, {.family = "granite"});
  spec.block.attention.scale = config.number("attention_multiplier", 1);  // instead of 1 / sqrt(head_dim)
  spec.block.residual_scale = config.number("residual_multiplier", 1);
  spec.edges.embedding_scale = config.number("embedding_multiplier", 1);
  spec.edges.logit_divisor = config.number("logits_scaling", 1);
  return spec;
}

ModelSpec granite_from_gguf(const io::GgufView& gguf) {
  const GgufConfig config(gguf);
  config.expect_flag("rope.scaling.finetuned", true);  // else nothing is rotated
  refuse(gguf.metadata().contains(config.key("deepstack_mapping")), gguf.origin(), config.key("deepstack_mapping"));
  auto spec = common_from_gguf(config, "granite");
  read_attention_scale(config, spec);
  spec.block.residual_scale = config.number("residual_scale", 1);
  spec.edges.embedding_scale = config.number("embedding_scale", 1);
  spec.edges.logit_divisor = config.number("logit_scale", 1);
  return spec;
}

nlohmann::json granite_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "GraniteForCausalLM");
  config["attention_multiplier"] = spec.block.attention.score_scale();
  config["residual_multiplier"] = spec.block.residual_scale;
  config["embedding_multiplier"] = spec.edges.embedding_scale;
  config["logits_scaling"] = spec.edges.logit_divisor;
  return config;
}

}  // namespace

Family granite() {
  return {.model_type = "granite",
          .gguf_architecture = "granite",
          .from_json = granite_from_json,
          .from_gguf = granite_from_gguf,
          .to_json = granite_to_json,
          .has_paired_gguf_rows = true};
}

}  // namespace quiver::model
