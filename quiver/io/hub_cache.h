// Models that transformers or huggingface_hub downloaded, by name. Nothing is downloaded here.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace quiver::io {

/// The cache's folder: $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else $HOME/.cache/huggingface/hub; empty if
/// none of these is set.
std::filesystem::path hub_cache();

/// "ORG/NAME" of a folder of the cache, "models--ORG--NAME"; nothing for another folder.
std::optional<std::string> hub_model_name(std::string_view folder);

/// Whether `name` means a model of the cache rather than a path: it could be a model's name, and has an ORG or is in the cache.
bool is_hub_model(const std::string& name);

/// Whether `name` could be a model's name, "ORG/NAME" or "NAME", with "@REVISION" behind it or not: letters, digits, "-", "_" and ".".
bool is_hub_name(const std::string& name);

/// The snapshot of a model in the cache, <cache>/models--ORG--NAME/snapshots/HASH. Without a revision it is that of "main", or the only one
/// there. A revision is a branch, a tag, or the first digits of a hash. Throws kNotFound, saying what the cache has.
std::filesystem::path hub_snapshot(const std::string& name);

}  // namespace quiver::io
