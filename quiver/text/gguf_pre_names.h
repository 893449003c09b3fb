// The names of tokenizer.ggml.pre.
#pragma once

#include <string_view>
#include <vector>

namespace quiver::text {

/// All that Quiver knows, "default" last: of names of the same way, the first is that of the most models.
std::vector<std::string_view> gguf_pre_names();

}  // namespace quiver::text
