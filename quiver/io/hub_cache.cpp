#include "quiver/io/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <tuple>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/io/file.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kModels = "models--";

/// Names of the folders in `folder`, sorted.
std::vector<std::string> folders_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.is_directory(error)) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

/// "ORG/NAME" as "models--ORG--NAME".
std::string folder_of_model(std::string id) {
  if (const auto slash = id.find('/'); slash != std::string::npos) id.replace(slash, 1, "--");
  return std::string(kModels) + id;
}

std::vector<std::string> models_in(const fs::path& cache) {
  std::vector<std::string> names;
  for (const auto& folder : folders_in(cache)) {
    if (auto name = hub_model_name(folder)) names.push_back(*std::move(name));
  }
  return names;
}

/// The hash that refs/`revision` holds.
std::optional<std::string> hash_of_ref(const fs::path& model, const std::string& revision) {
  const auto ref = model / "refs" / revision;
  if (!fs::exists(ref)) return std::nullopt;
  auto hash = read_text_file(ref);
  while (!hash.empty() && std::isspace(static_cast<unsigned char>(hash.back())) != 0) hash.pop_back();
  return hash;
}

std::string snapshot_of(const fs::path& model, const std::string& name, const std::optional<std::string>& revision) {
  const auto there = folders_in(model / "snapshots");
  const auto wanted = hash_of_ref(model, revision.value_or("main"));
  if (!wanted && !revision && there.size() == 1) return there.front();
  const auto hash = wanted.value_or(revision.value_or("main"));
  std::vector<std::string> matches;
  for (const auto& one : there) {
    if (one == hash || (!wanted && one.starts_with(hash))) matches.push_back(one);
  }
  if (matches.size() == 1) return matches.front();
  fail(ErrorKind::kNotFound, "'{}' has no snapshot of revision '{}' in the cache at '{}'; there are {}", name, revision.value_or("main"),
       model.string(), listed(there));
}

bool is_part(std::string_view part) {
  const auto is_allowed = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
  return !part.empty() && part != "." && part != ".." && std::ranges::all_of(part, is_allowed);
}

}  // namespace

fs::path hub_cache() {
  const std::tuple<const char*, const char*> places[] = {
      {"HF_HUB_CACHE", ""}, {"HF_HOME", "hub"}, {"XDG_CACHE_HOME", "huggingface/hub"}, {"HOME", ".cache/huggingface/hub"}};
  for (const auto& [variable, below] : places) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0') return fs::path(value) / below;
  }
  return {};
}

bool is_hub_name(const std::string& name) {
  const auto at = name.find('@');
  if (at != std::string::npos && !is_part(name.substr(at + 1))) return false;
  const auto id = name.substr(0, at);
  const auto slash = id.find('/');
  return slash == std::string::npos ? is_part(id) : is_part(id.substr(0, slash)) && is_part(id.substr(slash + 1));
}

std::optional<std::string> hub_model_name(std::string_view folder) {
  if (!folder.starts_with(kModels)) return std::nullopt;
  std::string name(folder.substr(kModels.size()));
  if (const auto dashes = name.find("--"); dashes != std::string::npos) name.replace(dashes, 2, "/");
  return name;
}

bool is_hub_model(const std::string& name) {
  if (!is_hub_name(name)) return false;
  const auto id = name.substr(0, name.find('@'));
  return id.find('/') != std::string::npos || fs::is_directory(hub_cache() / folder_of_model(id));
}

fs::path hub_snapshot(const std::string& name) {
  const auto at = name.find('@');
  const auto id = name.substr(0, at);
  const auto folder = folder_of_model(id), cache = hub_cache().string();
  if (!fs::is_directory(fs::path(cache) / folder)) {
    const auto known = models_in(cache);
    fail(ErrorKind::kNotFound, "model '{}' is neither a file or folder nor in the Hugging Face cache at '{}' (set HF_HOME for another){}",
         id, cache, did_you_mean(id, known));
  }
  const auto revision = at == std::string::npos ? std::nullopt : std::optional(name.substr(at + 1));
  const auto model = fs::path(cache) / folder;
  return model / "snapshots" / snapshot_of(model, id, revision);
}

}  // namespace quiver::io
