// Granite 3: Llama with four multipliers.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"

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

}  // namespace

Family granite() { return {"granite", nullptr, granite_from_json}; }

}  // namespace quiver::model
