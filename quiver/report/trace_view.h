// Shows a trace of routes (recipes/trace.h, docs/results.md): in a terminal, and as a page.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace quiver::report {

struct TraceTextOptions {
  std::int64_t width = 100;
  bool has_colour = false;   ///< the terminal obeys ANSI colours
  bool every_token = false;  ///< a line per token with a letter per layer: the adapter its projections favour
};

/// The figures, the adapters by their share, and, if asked for, every token. All text is made printable.
/// Throws kBadFormat for a document that is no trace, kUnsupported for one of another version.
std::string render_trace_text(const nlohmann::json& trace, const TraceTextOptions& options);

/// One self-contained HTML page: the text coloured by the adapters that its tokens favour, at all projections or at one; a click on a token
/// shows its weights by layer and adapter. Errors as render_trace_text.
std::string render_trace_page(const nlohmann::json& trace, const std::string& title);

}  // namespace quiver::report
