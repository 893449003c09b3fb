// The fuzz target of results: what can be read is written as it was read, and can be shown as a page.
#pragma once

#include <vector>

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/report/report.h"

namespace quiver::fuzz {

inline void run_results(std::span<const std::byte> bytes) {
  try {
    const std::vector<results::Results> one = {results::from_json(io::parse_json(text_of(bytes), "fuzz"), "fuzz")};
    const auto document = results::to_json(one.front());
    expect(results::to_json(results::from_json(document, "fuzz")) == document, "results that change when they are read again");
    const auto page = report::render_report(one);
    expect(page.ends_with("</html>\n"), "a page without an end");
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
