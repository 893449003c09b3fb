// Chat templates in Jinja's language, rendered as Python's jinja2 renders them for transformers.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace quiver::text {

namespace jinja {
struct Template;
}

struct JinjaOptions {
  /// What strftime_now formats; the local time of the call if absent.
  std::optional<std::tm> now;
  /// Evaluated expressions, loop items and blocks of 64 bytes of text that a rendering may take.
  std::int64_t max_steps = 20'000'000;
};

/// A parsed template. Immutable, thread-safe, cheap to copy.
///
/// Follows jinja2's sandbox with trim_blocks, lstrip_blocks, loop controls and `{% generation %}`, as transformers sets it up. Statements,
/// filters, tests, methods and functions outside the implemented set are refused by name and line. Templates are untrusted code: size,
/// nesting, steps, memory and output are bounded, see jinja_parts.h.
class Jinja {
 public:
  /// Parses `source`, UTF-8 text. `origin` names the template in messages. Throws kBadFormat for a syntax error, for invalid UTF-8 and for a
  /// template of more than 1 MiB, and kUnsupported for a construct outside the implemented set; both name the line.
  static Jinja parse(std::string_view source, std::string origin);

  /// Renders the template. `variables` is an object whose members are the template's global names; a name is undefined if absent, so leave out
  /// what Python's caller would not pass. Throws kBadFormat where jinja2 raises an error, kUnsupported for what is not implemented or exceeds a
  /// bound, and kUsage with the template's own message for raise_exception.
  std::string render(const nlohmann::ordered_json& variables, const JinjaOptions& options = {}) const;

 private:
  explicit Jinja(std::shared_ptr<const jinja::Template> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const jinja::Template> parsed_;
};

}  // namespace quiver::text
