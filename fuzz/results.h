// The fuzz target of results: what can be parsed can be shown as a page.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/report/report.h"

namespace quiver::fuzz {

inline void run_results(std::span<const std::byte> bytes) {
  try {
    const std::vector<nlohmann::json> one = {io::parse_json(text_of(bytes), "fuzz")};
    const auto page = report::render_report(one);
    expect(page.ends_with("</html>\n"), "a page without an end");
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
