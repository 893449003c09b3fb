#include "quiver/adapters/peft_names.h"

#include <algorithm>

#include "quiver/base/error.h"

namespace quiver::adapters {

std::string path_of(const std::string& module) { return module.starts_with(kModelPrefix) ? module.substr(kModelPrefix.size()) : module; }

std::string module_of(const std::string& path) {
  // The decoders of GPT-2 and GPT-NeoX are called otherwise, and paths begin with their names.
  const bool is_whole = path == "lm_head" || path.starts_with("transformer.") || path.starts_with("gpt_neox.");
  return is_whole ? path : std::string(kModelPrefix) + path;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(kMost, names.size()); ++i) text += format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  if (names.size() > kMost) text += format(" and {} more", names.size() - kMost);
  return text;
}

}  // namespace quiver::adapters
