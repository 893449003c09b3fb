// Names of modules and lists of names, shared by the sources of peft.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quiver::adapters {

inline constexpr std::string_view kModelPrefix = "model.";

/// The projection path of a module of transformers: "model.layers.3.self_attn.q_proj" without the leading "model.".
std::string path_of(const std::string& module);
/// Inverse of path_of for a causal language model, where only the head lies outside the decoder.
std::string module_of(const std::string& path);

/// "'a', 'b', 'c' and 5 more".
std::string listed(const std::vector<std::string>& names);

}  // namespace quiver::adapters
