// What the small files of a library say beside their tensors. Free of libtorch, so that it runs under fuzzers.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/io/safetensors.h"

namespace quiver::library {

/// How tasks mix skills (Poly, MHR), without the logits themselves.
struct MixingMeta {
  struct Skill {
    std::string name;
    std::string sha256;  ///< of its tensors' file, as it was when the logits were trained
  };
  std::vector<std::string> tasks;  ///< in the order of the logits, as the skills are
  std::vector<Skill> skills;
  std::string rule;         ///< merge::mix_rule_name
  std::string granularity;  ///< merge::mix_unit_name
  std::int64_t heads = 1;
};

/// The metadata of mixing/<kind>.safetensors. Throws kBadFormat for missing or wrong members, and where the tensor "logits"
/// is not of shape [tasks, units, heads, skills].
MixingMeta parse_mixing(const io::SafetensorsView& view);
/// The metadata that parse_mixing reads: a key and its text.
std::pair<std::string, std::string> mixing_metadata(const MixingMeta& meta);

/// artifacts/<key>.json.
struct ArtifactRecord {
  std::string sha256;  ///< of the tensors' file
  nlohmann::json meta;
};

/// Throws kBadFormat.
ArtifactRecord parse_artifact_record(std::string_view text, std::string_view origin);
std::string artifact_record_text(const ArtifactRecord& record, std::string_view origin);

}  // namespace quiver::library
