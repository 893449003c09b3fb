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

/// How jinja2 is set up.
enum class JinjaDialect {
  /// As transformers does for chat templates: trim_blocks, lstrip_blocks, loop controls, `{% generation %}`.
  kTransformers,
  /// As lm-evaluation-harness does for tasks: no trimming, the line end at the end of the source stays, and an undefined value is an error
  /// (StrictUndefined). Here it is an error wherever it is evaluated, but for `default` and the tests `defined` and `undefined`.
  /// The filter `tojson` is refused, since it escapes HTML there.
  kLmEval,
};

struct JinjaOptions {
  /// What strftime_now formats; the local time of the call if absent.
  std::optional<std::tm> now;
  /// Evaluated expressions, loop items and blocks of 64 bytes of text that a rendering may take.
  std::int64_t max_steps = 20'000'000;
};

/// A parsed template. Immutable, thread-safe, cheap to copy.
///
/// Follows jinja2's sandbox in the set-up of its dialect. Statements, filters, tests, methods and functions outside the implemented set are
/// refused by name and line. Templates are untrusted code: size, nesting, steps, memory and output are bounded, see jinja_parts.h.
class Jinja {
 public:
  /// Parses `source`, UTF-8 text. `origin` names the template in messages. Throws kBadFormat for a syntax error, for invalid UTF-8 and for
  /// a template of more than 1 MiB. Throws kUnsupported for a construct outside the implemented set. Both name the line.
  static Jinja parse(std::string_view source, std::string origin, JinjaDialect dialect = JinjaDialect::kTransformers);

  /// Renders the template. The members of the object `variables` are the template's global names. An absent member is undefined, null is
  /// None. Throws kBadFormat where jinja2 raises an error, and kUnsupported for what is not implemented or exceeds a bound. A call of
  /// raise_exception throws kUsage with the origin and the template's own message.
  std::string render(const nlohmann::ordered_json& variables, const JinjaOptions& options = {}) const;

 private:
  explicit Jinja(std::shared_ptr<const jinja::Template> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const jinja::Template> parsed_;
};

}  // namespace quiver::text
