#include "quiver/model/families.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::model {

/// The table: a row for each family, whose function stands in families/.
#define QUIVER_FAMILIES(ROW) \
  ROW(llama)                 \
  ROW(mistral)               \
  ROW(qwen2)                 \
  ROW(qwen3)                 \
  ROW(smollm3)               \
  ROW(granite)               \
  ROW(olmo2)                 \
  ROW(phi)                   \
  ROW(phi3)                  \
  ROW(stablelm)              \
  ROW(gpt_neox)              \
  ROW(gpt_neo)               \
  ROW(gpt2)                  \
  ROW(gemma)                 \
  ROW(gemma2)                \
  ROW(gemma3_text)

#define QUIVER_DECLARE(name) Family name();
QUIVER_FAMILIES(QUIVER_DECLARE)

std::span<const Family> families() {
#define QUIVER_ROW(name) name(),
  static const Family table[] = {QUIVER_FAMILIES(QUIVER_ROW)};
  return table;
}
#undef QUIVER_DECLARE
#undef QUIVER_ROW
#undef QUIVER_FAMILIES

namespace {

/// "a, b or c" of the names that are not null.
std::string alternatives(const char* Family::*name) {
  std::vector<std::string> names;
  for (const auto& family : families()) {
    if (family.*name != nullptr) names.emplace_back(family.*name);
  }
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) text += (i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + names[i];
  return text;
}

const Family* find_family(const char* Family::*name, std::string_view wanted) {
  const auto found =
      std::ranges::find_if(families(), [&](const Family& family) { return family.*name != nullptr && family.*name == wanted; });
  return found == families().end() ? nullptr : &*found;
}

}  // namespace

const Family& family_of(const ModelSpec& spec) {
  const auto* family = find_family(&Family::model_type, spec.family);
  if (family == nullptr) fail(ErrorKind::kInternal, "a model of family '{}', which is not in the table", spec.family);
  return *family;
}

nlohmann::json text_config(const nlohmann::json& config, const std::string& origin) {
  if (io::find_string(config, "model_type", origin).value_or("") != "gemma3") return config;
  nlohmann::json text = {{"model_type", "gemma3_text"}, {"vocab_size", 262208},    {"hidden_size", 2304},
                         {"intermediate_size", 9216},   {"num_hidden_layers", 26}, {"num_attention_heads", 8}};
  text.update(io::require_object(config, "text_config", origin));
  text["final_logit_softcapping"] = nullptr;  // transformers' model of text and images does not read it
  return text;
}

ModelSpec spec_from_json(const nlohmann::json& given, const std::string& origin) {
  const auto config = text_config(given, origin);
  const auto type = io::require_string(config, "model_type", origin);
  const auto* family = find_family(&Family::model_type, type);
  if (family == nullptr) {
    fail(ErrorKind::kUnsupported, "{}: model_type '{}' is not supported; expected {}", origin, type, alternatives(&Family::model_type));
  }
  auto spec = family->from_json(config, origin);
  spec.block.norm.offset = family->norm_offset;
  check(spec, origin);
  return spec;
}

ModelSpec spec_from_gguf(const io::GgufView& gguf) {
  const auto& origin = gguf.origin();
  const auto& architecture = gguf.require_string("general.architecture");
  const auto* family = find_family(&Family::gguf_architecture, architecture);
  if (family == nullptr) {
    fail(ErrorKind::kUnsupported, "{}: architecture '{}' is not supported; expected {}", origin, architecture,
         alternatives(&Family::gguf_architecture));
  }
  auto spec = family->from_gguf(gguf);
  for (const auto& rope : spec.ropes) {
    if (family->has_paired_gguf_rows && rope.rotary_dim != spec.block.attention.head_dim) {
      fail(ErrorKind::kUnsupported, "{}: rotary embedding of a part of a head ({}.rope.dimension_count) is not supported", origin,
           architecture);
    }
  }
  if (const auto* name = gguf.find_string("general.name")) spec.name = *name;
  check(spec, origin);
  return spec;
}

nlohmann::json spec_to_json(const ModelSpec& spec) {
  const auto& family = family_of(spec);
  auto config = family.to_json(spec);
  auto read = spec_from_json(config, spec.name);
  read.block.norm.offset = spec.block.norm.offset;
  if (essence(read) != essence(spec)) {
    fail(ErrorKind::kUnsupported,
         "no config.json of model_type '{}' describes '{}': it has biases, windows, scales or rotations as no such model has", spec.family,
         spec.name);
  }
  return config;
}

}  // namespace quiver::model
