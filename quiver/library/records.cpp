#include "quiver/library/records.h"

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::library {
namespace {

using nlohmann::json;

constexpr const char* kMixingKey = "quiver.mixing";

std::vector<std::string> task_names(const json& document, std::string_view origin) {
  std::vector<std::string> names;
  for (const auto& item : io::require_array(document, "tasks", origin)) {
    if (!item.is_string()) fail(ErrorKind::kBadFormat, "{}: 'tasks' holds a {}; expected names", origin, item.type_name());
    names.push_back(item.get<std::string>());
  }
  return names;
}

/// Throws kBadFormat unless the logits are [tasks, units, heads, skills].
void check_logits(const io::SafetensorsView& view, const MixingMeta& meta) {
  const auto* logits = view.find("logits");
  if (logits == nullptr) fail(ErrorKind::kBadFormat, "'{}' has no tensor 'logits'; train the skills again", view.origin());
  const auto& shape = logits->shape;
  const auto num_tasks = static_cast<std::int64_t>(meta.tasks.size());
  const auto num_skills = static_cast<std::int64_t>(meta.skills.size());
  const bool fits = shape.size() == 4 && shape[0] == num_tasks && shape[2] == meta.heads && shape[3] == num_skills;
  const bool is_number = logits->dtype == io::Dtype::kF32 || logits->dtype == io::Dtype::kF64;
  if (fits && is_number) return;
  std::string sizes;
  for (const auto size : shape) sizes += format("{}{}", sizes.empty() ? "" : ", ", size);
  fail(ErrorKind::kBadFormat, "'{}': 'logits' is {} [{}]; expected F32 or F64 [{}, units, {}, {}], for tasks, heads and skills",
       view.origin(), io::dtype_name(logits->dtype), sizes, num_tasks, meta.heads, num_skills);
}

}  // namespace

MixingMeta parse_mixing(const io::SafetensorsView& view) {
  const auto found = view.metadata().find(kMixingKey);
  if (found == view.metadata().end()) fail(ErrorKind::kBadFormat, "'{}' has no metadata '{}'", view.origin(), kMixingKey);
  const auto where = format("'{}': {}", view.origin(), kMixingKey);
  const auto document = io::parse_json(found->second, where);
  MixingMeta meta;
  meta.tasks = task_names(document, where);
  for (const auto& skill : io::require_array(document, "skills", where)) {
    meta.skills.push_back({io::require_string(skill, "name", where), io::require_string(skill, "sha256", where)});
  }
  meta.rule = io::require_string(document, "rule", where);
  meta.granularity = io::require_string(document, "granularity", where);
  meta.heads = io::require_int(document, "heads", where);
  check_logits(view, meta);
  return meta;
}

std::pair<std::string, std::string> mixing_metadata(const MixingMeta& meta) {
  json skills = json::array();
  for (const auto& skill : meta.skills) skills.push_back({{"name", skill.name}, {"sha256", skill.sha256}});
  const json document = {
      {"tasks", meta.tasks}, {"skills", skills}, {"rule", meta.rule}, {"granularity", meta.granularity}, {"heads", meta.heads}};
  return {kMixingKey, io::dump_json(document, "how tasks mix skills")};
}

ArtifactRecord parse_artifact_record(std::string_view text, std::string_view origin) {
  const auto document = io::parse_json(text, origin);
  ArtifactRecord record{.sha256 = io::require_string(document, "sha256", origin), .meta = nullptr};
  const auto meta = document.find("meta");
  if (meta == document.end()) fail(ErrorKind::kBadFormat, "{}: the key 'meta' is missing", origin);
  record.meta = *meta;
  return record;
}

std::string artifact_record_text(const ArtifactRecord& record, std::string_view origin) {
  return io::dump_json({{"sha256", record.sha256}, {"meta", record.meta}}, origin, /*indent=*/2) + "\n";
}

}  // namespace quiver::library
