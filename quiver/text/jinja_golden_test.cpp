// Against jinja2's renderings in tests/golden/chat_template, and of real templates where scripts/setup.sh --test could fetch them.
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/text/jinja.h"

namespace quiver::text {
namespace {

using Json = nlohmann::ordered_json;

/// The clock of scripts/golden/make_chat_templates.py: Monday, 2026-03-09 14:05:07.
JinjaOptions golden_options() {
  std::tm now{};
  now.tm_year = 126;
  now.tm_mon = 2;
  now.tm_mday = 9;
  now.tm_hour = 14;
  now.tm_min = 5;
  now.tm_sec = 7;
  now.tm_wday = 1;
  now.tm_yday = 67;
  return {.now = now};
}

struct Outcome {
  std::optional<std::string> text;
  std::string error;
  bool is_refused = false;
};

Outcome rendered(const Json& source, const Json& variables) {
  try {
    return {.text = Jinja::parse(source.get_ref<const std::string&>(), "template").render(variables, golden_options()), .error = {}};
  } catch (const Error& error) {
    return {.text = std::nullopt, .error = error.what(), .is_refused = error.kind() == ErrorKind::kUnsupported};
  }
}

TEST(JinjaGolden, RendersEveryConstructAsJinja2Does) {
  const Json rows = Json::parse(io::read_text_file("tests/golden/chat_template/constructs.json"));
  ASSERT_GE(rows.size(), 200);
  for (const Json& row : rows) {
    SCOPED_TRACE(row.at("name").get<std::string>() + ": " + row.at("template").dump());
    const Outcome actual = rendered(row.at("template"), row.at("variables"));
    if (row.contains("raises")) {
      EXPECT_FALSE(actual.text) << "rendered " << Json(*actual.text) << "; jinja2 raises " << row.at("raises");
      EXPECT_FALSE(actual.is_refused) << actual.error;
    } else if (!actual.text) {
      ADD_FAILURE() << actual.error << "\nexpected " << row.at("expected");
    } else {
      EXPECT_EQ(*actual.text, row.at("expected").get<std::string>());
    }
  }
}

/// True if Quiver raises as well; where the template calls raise_exception, with its message.
bool raises_alike(const Outcome& actual, const std::string& python) {
  constexpr std::string_view kOwn = "TemplateError: ";
  if (actual.text || actual.is_refused) return false;
  return !python.starts_with(kOwn) || actual.error.starts_with("template: " + python.substr(kOwn.size()));
}

/// How many cases of one template differ; the first is reported.
std::int64_t num_differences(const Json& entry, const Json& all_variables) {
  std::int64_t count = 0;
  for (const Json& one : entry.at("cases")) {
    const Json& variables = all_variables.at(one.at("variables").get<std::size_t>());
    const Outcome actual = rendered(entry.at("template"), variables);
    const bool is_same = one.contains("raises") ? raises_alike(actual, one.at("raises").get<std::string>())
                                                : actual.text == one.at("expected").get<std::string>();
    if (is_same) continue;
    if (++count > 1) continue;
    ADD_FAILURE() << entry.at("name") << ", variables " << variables << "\n got  "
                  << (actual.text ? Json(*actual.text).dump() : actual.error) << "\n want "
                  << one.value("expected", Json(one.value("raises", "")));
  }
  return count;
}

TEST(JinjaGolden, RendersRealTemplatesAsJinja2Does) {
  const std::filesystem::path path = ".venv/chat-templates/cases.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is missing: scripts/setup.sh --test makes it";
  const Json rows = Json::parse(io::read_text_file(path));
  std::int64_t num_equal = 0;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    num_equal += num_differences(rows[i], rows[0].at("variables")) == 0 ? 1 : 0;
  }
  EXPECT_GE(num_equal, 70);
  EXPECT_EQ(num_equal, static_cast<std::int64_t>(rows.size()) - 1);
  RecordProperty("templates_equal", static_cast<int>(num_equal));
}

}  // namespace
}  // namespace quiver::text
