// What the fuzz target of chat templates runs, shared with the test that runs it over the seed corpus.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/text/jinja.h"

namespace quiver::fuzz {

/// A template up to the first zero byte, then its variables as JSON; without such JSON, a small conversation.
inline void run_jinja(std::span<const std::byte> bytes) {
  using Json = nlohmann::ordered_json;
  static const Json conversation = {
      {"messages",
       {{{"role", "system"}, {"content", " Be brief. "}},
        {{"role", "user"}, {"content", "H\u00e9llo"}},
        {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", Json::array({{{"name", "f"}, {"arguments", {{"x", 1.5}}}}})}}}},
      {"tools", Json::array({{{"name", "f"}, {"parameters", {{"type", "object"}}}}})},
      {"add_generation_prompt", true},
      {"bos_token", "<s>"}};
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t zero = all.find('\0');
  Json variables = conversation;
  if (zero != std::string_view::npos) {
    Json given = Json::parse(all.substr(zero + 1), nullptr, /*allow_exceptions=*/false);
    if (given.is_object()) variables = std::move(given);
  }
  try {
    const std::string out = text::Jinja::parse(all.substr(0, zero), "fuzz").render(variables, {.max_steps = 100'000});
    if (!is_valid_utf8(out)) throw std::logic_error("a rendering that is not UTF-8");
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) throw;
  }
}

}  // namespace quiver::fuzz
