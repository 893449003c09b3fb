// OLMo 2: norms after the branches alone, and norms of whole queries and keys.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"

namespace quiver::model {
namespace {

ModelSpec olmo2_from_json(const nlohmann::json& values, const std::string& origin) {
  auto spec = common_from_json(Config(values, origin), {.family = "olmo2", .epsilon = 1e-5});
  spec.block.places = NormPlaces::kAfter;
  spec.block.attention.qk_norm = QkNorm::kWidth;
  spec.block.mlp.has_bias = false;
  spec.names.attention_norm = spec.names.mlp_norm = nullptr;
  spec.names.attention_post_norm = "post_attention_layernorm";
  spec.names.mlp_post_norm = "post_feedforward_layernorm";
  return spec;
}

}  // namespace

Family olmo2() { return {"olmo2", nullptr, olmo2_from_json}; }

}  // namespace quiver::model
