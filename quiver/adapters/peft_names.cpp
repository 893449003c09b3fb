#include "quiver/adapters/peft_names.h"

#include <algorithm>
#include <optional>

#include "quiver/base/error.h"

namespace quiver::adapters {

namespace {

/// A map of a block in Microsoft's own code of Phi-1.5 and 2, "transformer.h.<layer>.<theirs>", and in transformers,
/// "layers.<layer>.<ours>".
struct PhiName {
  std::string_view theirs, ours;
};
constexpr std::string_view kPhiBlocks = "transformer.h.", kBlocks = "layers.";
constexpr PhiName kPhiNames[] = {{"mixer.Wqkv", "self_attn.qkv_proj"},  // rows q, then k, then v
                                 {"mixer.out_proj", "self_attn.dense"},
                                 {"mlp.fc1", "mlp.fc1"},
                                 {"mlp.fc2", "mlp.fc2"}};
constexpr PhiName kPhiOutside[] = {{"transformer.embd.wte", "embed_tokens"}, {"lm_head.linear", "lm_head"}};

/// `name` with its beginning "<from><layer>." and one of the names behind it changed; nothing if it is another name.
std::optional<std::string> renamed(std::string_view name, std::string_view from, std::string_view to, std::string_view PhiName::*old_name,
                                   std::string_view PhiName::*new_name) {
  const auto dot = name.find('.', std::min(from.size(), name.size()));
  if (!name.starts_with(from) || dot == std::string_view::npos) return std::nullopt;
  for (const auto& names : kPhiNames) {
    if (name.substr(dot + 1) == names.*old_name) {
      return format("{}{}{}", to, name.substr(from.size(), dot + 1 - from.size()), names.*new_name);
    }
  }
  return std::nullopt;
}

}  // namespace

bool is_head(std::string_view module) { return module == "lm_head" || module == "embed_out"; }

std::string path_of(const std::string& module) {
  for (const auto& [theirs, ours] : kPhiOutside) {
    if (module == theirs) return std::string(ours);
  }
  if (const auto path = renamed(module, kPhiBlocks, kBlocks, &PhiName::theirs, &PhiName::ours)) return *path;
  if (is_head(module)) return "lm_head";
  return module.starts_with(kModelPrefix) ? module.substr(kModelPrefix.size()) : module;
}

std::string module_of(const std::string& path) {
  // The decoders of GPT-2 and GPT-NeoX are called otherwise, and paths begin with their names.
  const bool is_whole = is_head(path) || path.starts_with("transformer.") || path.starts_with("gpt_neox.");
  return is_whole ? path : std::string(kModelPrefix) + path;
}

std::vector<std::string> modules_of(const std::string& path) {
  std::vector<std::string> modules = {module_of(path)};
  if (path != modules.front()) modules.push_back(path);  // of a bare decoder
  if (const auto old = renamed(path, kBlocks, kPhiBlocks, &PhiName::ours, &PhiName::theirs)) modules.push_back(*old);
  return modules;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(kMost, names.size()); ++i) text += format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  if (names.size() > kMost) text += format(" and {} more", names.size() - kMost);
  return text;
}

}  // namespace quiver::adapters
