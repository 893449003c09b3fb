// Library::verify: everything read again, nothing changed.
#include <algorithm>

#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/library/library.h"

namespace quiver::library {
namespace {

namespace fs = std::filesystem;

/// A path's d_in and d_out, and the adapter that was the first to have it.
struct KnownShape {
  std::int64_t in_features;
  std::int64_t out_features;
  std::string adapter;
};

void verify_shapes(const adapters::LoraAdapter& adapter, std::map<std::string, KnownShape>& shapes, std::vector<Finding>& findings) {
  for (const auto& [path, pair] : adapter.pairs) {
    const KnownShape own{pair.in_features(), pair.out_features(), adapter.name};
    const auto& known = shapes.emplace(path, own).first->second;
    if (known.in_features == own.in_features && known.out_features == own.out_features) continue;
    findings.push_back({format("adapter '{}'", adapter.name),
                        format("at {} it maps {} to {} features, adapter '{}' maps {} to {}: one of them is of another base", path,
                               own.in_features, own.out_features, known.adapter, known.in_features, known.out_features)});
    return;
  }
}

void verify_adapter(const Library& library, const AdapterEntry& entry, std::map<std::string, KnownShape>& shapes,
                    std::vector<Finding>& findings) {
  const auto where = format("adapter '{}'", entry.name);
  const auto report = [&](std::string message) { findings.push_back({where, std::move(message)}); };
  try {
    const auto adapter = adapters::load_peft(library.adapter_folder(entry.name));
    const auto check_file = [&](const char* file, const std::string& expected) {
      const auto sha256 = io::sha256_file(library.adapter_folder(entry.name) / file);
      if (sha256 == expected || expected.empty()) return;
      report(format(
          "{} has SHA-256 {}, the catalogue says {}: it was changed or damaged after it was added (add it again by force, or restore it)",
          file, sha256, expected));
    };
    check_file(adapters::kPeftTensorsFile, entry.sha256);
    check_file(adapters::kPeftConfigFile, entry.config_sha256);
    if (adapters::changes_nothing(adapter)) report("lora_B is 0 everywhere, so that it changes nothing: it was never trained");
    const auto& base = library.base();
    const bool both_known = !entry.is_as_given && !adapter.base_fingerprint.empty() && !base.fingerprint.empty();
    if (both_known && adapter.base_fingerprint != base.fingerprint) {
      report(format("it was trained on a base with fingerprint {}, the library's is {}: remove it", adapter.base_fingerprint,
                    base.fingerprint));
    }
    verify_shapes(adapter, shapes, findings);
  } catch (const Error& error) {
    report(format("cannot be read: {}", error.what()));
  }
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> entries;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    entries.push_back(it->path());
  }
  std::ranges::sort(entries);
  return entries;
}

void verify_folders(const Library& library, std::vector<Finding>& findings) {
  for (const auto& path : entries_of(library.path() / "adapters")) {
    const auto name = path.filename().string();
    if (library.find(name) != nullptr) continue;
    const auto fault = name.starts_with('.') ? "was left by a run that was killed, or is being written: remove it if no run goes on"
                                             : "is not in the catalogue: adopt it, or remove it";
    findings.push_back({"adapters", format("'{}' {}", path.string(), fault)});
  }
}

void verify_artifacts(const Library& library, std::vector<Finding>& findings) {
  for (const auto& path : entries_of(library.path() / "artifacts")) {
    const auto key = path.stem().string();
    const auto report = [&](std::string_view message) { findings.push_back({"artifacts", format("'{}' {}", path.string(), message)}); };
    if (key.starts_with('.')) {
      report("was left by a run that was killed, or is being written: remove it if no run goes on");
    } else if (path.extension() != ".safetensors" && path.extension() != ".json") {
      report("is no artifact: remove it");
    } else if (path.extension() == ".safetensors") {
      try {
        if (!library.find_artifact(key).has_value()) report("is damaged and will be computed again: remove it");
      } catch (const Error&) {
        report("has no artifact's name: remove it");
      }
    }
  }
}

/// How tasks mix skills: readable, and of the skills that are there.
void verify_mixing(const Library& library, std::vector<Finding>& findings) {
  for (const auto& path : entries_of(library.path() / "mixing")) {
    const auto report = [&](std::string_view message) { findings.push_back({"mixing", format("'{}' {}", path.string(), message)}); };
    try {
      const auto mixing = library.find_mixing(path.stem().string());
      if (!mixing) {
        report("is not a file of how tasks mix skills: remove it");
        continue;
      }
      for (const auto& skill : mixing->meta.skills) {
        const auto* entry = library.find(skill.name);
        if (entry == nullptr || entry->sha256 != skill.sha256) {
          report(format("is of a skill '{}' that is not, or no longer, in the library: train the skills again, or remove it", skill.name));
        }
      }
    } catch (const Error& error) {
      report(format("cannot be read: {}", error.what()));
    }
  }
}

}  // namespace

std::vector<Finding> Library::verify() const {
  std::vector<Finding> findings;
  std::map<std::string, KnownShape> shapes;
  for (const auto& [name, entry] : adapters()) verify_adapter(*this, entry, shapes, findings);
  verify_folders(*this, findings);
  verify_artifacts(*this, findings);
  verify_mixing(*this, findings);
  return findings;
}

}  // namespace quiver::library
