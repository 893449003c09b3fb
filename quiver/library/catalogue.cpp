#include "quiver/library/catalogue.h"

#include <algorithm>
#include <array>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::library {
namespace {

using nlohmann::json;

constexpr const char* kFormatName = "quiver library";

AdapterKind parse_kind(const std::string& name, std::string_view origin) {
  if (const auto kind = find_kind(name)) return *kind;
  fail(ErrorKind::kBadFormat, "{}: kind is '{}', which is not one of {}", origin, name, kind_names());
}

std::vector<std::string> parse_strings(const json& value, std::string_view what, std::string_view origin) {
  std::vector<std::string> strings;
  const bool is_list = value.is_array() && std::ranges::all_of(value, [](const auto& item) { return item.is_string(); });
  if (!is_list) fail(ErrorKind::kBadFormat, "{}: {} is not a list of strings", origin, what);
  for (const auto& item : value) strings.push_back(item.template get<std::string>());
  return strings;
}

/// Null or an object, which extend_group adds to.
json parse_provenance(const json& document, std::string_view origin) {
  const auto found = document.find("groups_provenance");
  if (found == document.end() || found->is_null()) return nullptr;
  const auto& provenance = io::require_object(document, "groups_provenance", origin);
  if (provenance.contains("joined")) io::require_object(provenance, "joined", format("{}: groups_provenance", origin));
  return provenance;
}

AdapterEntry parse_entry(const std::string& name, const json& value, std::string_view origin) {
  check_adapter_name(name);  // it becomes a path
  const auto where = format("{}: adapter '{}'", origin, name);
  AdapterEntry entry;
  entry.name = name;
  entry.info.kind = parse_kind(io::require_string(value, "kind", where), where);
  entry.info.tasks = parse_strings(io::require_array(value, "tasks", where), "tasks", where);
  entry.info.group = io::find_string(value, "group", where).value_or("");
  entry.info.created = io::require_string(value, "created", where);
  if (value.contains("training")) entry.info.training = io::require_object(value, "training", where);
  io::find_string(entry.info.training, "key", where);  // what recipes tell trainings apart by
  entry.rank = io::require_int(value, "rank", where);
  entry.sha256 = io::require_string(value, "sha256", where);
  entry.config_sha256 = io::find_string(value, "config_sha256", where).value_or("");
  entry.is_as_given = io::find_bool(value, "as_given", where).value_or(false);
  return entry;
}

}  // namespace

const char* kind_name(AdapterKind kind) {
  constexpr std::array kNames = {"private", "cluster", "shared", "imported", "poly", "mhr"};
  return kNames.at(static_cast<std::size_t>(kind));
}

std::optional<AdapterKind> find_kind(std::string_view name) {
  for (const auto kind : kAdapterKinds) {
    if (name == kind_name(kind)) return kind;
  }
  return std::nullopt;
}

std::string kind_names() {
  std::string names;
  for (const auto kind : kAdapterKinds) names += (names.empty() ? "" : ", ") + std::string(kind_name(kind));
  return names;
}

void check_adapter_name(const std::string& name) {
  const bool is_plain = std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
  if (!is_plain || name.empty() || static_cast<std::int64_t>(name.size()) > kMaxAdapterNameBytes || name.front() == '.' ||
      name.front() == '-') {
    fail(ErrorKind::kUsage,
         "'{}' of {} bytes cannot name an adapter: use 1 to {} of the characters A-Z a-z 0-9 . _ - and start with a letter, digit or _",
         name, name.size(), kMaxAdapterNameBytes);
  }
}

std::vector<std::string> tasks_served(const std::string& name, const std::vector<std::string>& tasks) {
  return tasks.empty() ? std::vector{name} : tasks;
}

Catalogue parse_catalogue(std::string_view text, std::string_view origin) {
  const auto document = io::parse_json(text, origin);
  if (!document.is_object() || document.value("format", json()) != kFormatName) {
    fail(ErrorKind::kBadFormat, "{}: not the catalogue of a library (\"format\" is not \"{}\")", origin, kFormatName);
  }
  const auto version = io::require_int(document, "version", origin);
  if (version != kFormatVersion) {
    fail(ErrorKind::kUnsupported, "{}: a library of format version {}; this program reads version {} ({})", origin, version, kFormatVersion,
         version > kFormatVersion ? "use a newer one" : "use the one that wrote it");
  }
  Catalogue catalogue;
  const auto& base = io::require_object(document, "base_model", origin);
  catalogue.base = {io::require_string(base, "name", origin), io::require_string(base, "fingerprint", origin)};
  for (const auto& [name, value] : io::require_object(document, "adapters", origin).items()) {
    catalogue.adapters.emplace(name, parse_entry(name, value, origin));
  }
  for (const auto& [name, value] : io::require_object(document, "groups", origin).items()) {
    catalogue.groups.emplace(name, parse_strings(value, format("group '{}'", name), origin));
  }
  catalogue.groups_provenance = parse_provenance(document, origin);
  return catalogue;
}

std::string catalogue_text(const Catalogue& catalogue) {
  auto adapters = json::object();
  for (const auto& [name, entry] : catalogue.adapters) {
    const auto& info = entry.info;
    adapters[name] = {{"kind", kind_name(info.kind)}, {"tasks", info.tasks}, {"created", info.created},
                      {"training", info.training},    {"rank", entry.rank},  {"sha256", entry.sha256}};
    if (!info.group.empty()) adapters[name]["group"] = info.group;
    if (!entry.config_sha256.empty()) adapters[name]["config_sha256"] = entry.config_sha256;
    if (entry.is_as_given) adapters[name]["as_given"] = true;
  }
  const json document = {{"format", kFormatName},
                         {"version", kFormatVersion},
                         {"base_model", {{"name", catalogue.base.name}, {"fingerprint", catalogue.base.fingerprint}}},
                         {"adapters", adapters},
                         {"groups", catalogue.groups},
                         {"groups_provenance", catalogue.groups_provenance}};
  return io::dump_json(document, "the library's catalogue", /*indent=*/2) + "\n";
}

}  // namespace quiver::library
