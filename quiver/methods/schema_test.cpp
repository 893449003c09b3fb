#include "quiver/methods/schema.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "quiver/methods/table.h"
#include "quiver/testing/message_of.h"

namespace quiver::methods {
namespace {

enum class Shape { kRound, kSquare };

struct Options {
  std::int64_t count = 3;
  double share = 0.5;
  bool is_quick = false;
  std::optional<std::int64_t> limit;
  Shape shape = Shape::kSquare;
  std::vector<std::string> names;
  Weights weights;
  ContentFile text;
  std::uint64_t seed = 42;
};

Schema<Options> schema() {
  Schema<Options> schema;
  schema.add(&Options::count, "count", {.help = "how many", .range = at_least(1)});
  schema.add(&Options::share, "share", {.help = "of them", .range = {.least = 0, .most = 1, .excludes_least = true}});
  schema.add(&Options::is_quick, "quick", {.help = "not all"});
  schema.add(&Options::limit, "limit", {.help = "at most", .range = at_least(1), .unset = "all", .needs = "quick"});
  schema.add_words(&Options::shape, "shape",
                   std::vector<std::pair<std::string, Shape>>{{"round", Shape::kRound}, {"square", Shape::kSquare}}, {.help = "of each"});
  schema.add(&Options::names, "names", {.help = "which"});
  schema.add(&Options::weights, "weights", {.help = "of each"});
  schema.add(&Options::text, "text", {.help = "a file"});
  schema.add(&Options::seed, "seed", {.help = "draws"});
  return schema;
}

const Option& option(const std::string& name) {
  static const auto options = schema().options();
  return *find_option(options, name);
}

TEST(Schema, ReadsGivenValuesAndKeepsTheRest) {
  const auto initial = schema().read(OptionValues::object());
  EXPECT_EQ(initial.count, 3);
  EXPECT_EQ(initial.limit, std::nullopt);
  EXPECT_EQ(initial.shape, Shape::kSquare);
  const auto read = schema().read({{"count", 5},
                                   {"share", 1},
                                   {"quick", true},
                                   {"limit", 7},
                                   {"shape", "round"},
                                   {"names", {"a", "b"}},
                                   {"weights", {{"b", 1}, {"a", 0.5}}},
                                   {"text", "path"},
                                   {"seed", 18446744073709551615U}});
  EXPECT_EQ(read.count, 5);
  EXPECT_EQ(read.share, 1);
  EXPECT_TRUE(read.is_quick);
  EXPECT_EQ(read.limit, 7);
  EXPECT_EQ(read.shape, Shape::kRound);
  EXPECT_EQ(read.names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read.weights.by_name, (std::map<std::string, double>{{"a", 0.5}, {"b", 1}}));
  EXPECT_EQ(read.text.path, "path");
  EXPECT_EQ(read.seed, 18446744073709551615U);
  EXPECT_EQ(schema().read({{"weights", {1, 0}}}).weights.by_position, (std::vector<double>{1, 0}));
}

TEST(Schema, ParsesTextAndWritesItAgain) {
  const std::tuple<const char*, const char*, nlohmann::json> rows[] = {
      {"count", "12", 12},
      {"share", "1e-1", 0.1},
      {"share", "1", 1.0},
      {"quick", "true", true},
      {"shape", "round", "round"},
      {"names", "a,b", {"a", "b"}},
      {"names", "", nlohmann::json::array()},
      {"weights", "0.5,-1", {0.5, -1.0}},
      {"weights", "b=1,a=0.25", {{"a", 0.25}, {"b", 1.0}}},
      {"seed", "18446744073709551615", 18446744073709551615U},
  };
  for (const auto& [name, text, value] : rows) {
    SCOPED_TRACE(text);
    EXPECT_EQ(parse_option(option(name), text), value);
    EXPECT_EQ(parse_option(option(name), value_text(value)), value);
  }
}

TEST(Schema, RefusesTextsInWords) {
  const std::tuple<const char*, const char*, const char*> rows[] = {
      {"count", "0", "`count`: must be at least 1, not 0"},
      {"count", "1.5", "`count`: must be a whole number, not '1.5'"},
      {"count", "", "`count`: must be a whole number, not ''"},
      {"count", "2000000000", "`count`: must be at most 1000000000, not 2000000000"},
      {"count", "99999999999999999999", "`count`: must be at most 1000000000, not 99999999999999999999"},
      {"share", "0", "`share`: must be above 0 and at most 1, not 0"},
      {"share", "1.25", "`share`: must be above 0 and at most 1, not 1.25"},
      {"share", "nan", "`share`: must be a finite number, not nan"},
      {"share", "inf", "`share`: must be a finite number, not inf"},
      {"share", "half", "`share`: must be a number, not 'half'"},
      {"quick", "yes", "`quick`: must be true or false, not 'yes'"},
      {"shape", "flat", "`shape` 'flat' is not one of round, square"},
      {"weights", "1,x", "`weights`: must be a number, not 'x'"},
      {"weights", "1,inf", "`weights`: must be a finite number, not inf"},
      {"weights", "a=1,2", "either all weights have a name"},
      {"weights", "a=1,a=2", "`weights` names 'a' twice"},
      {"seed", "-1", "`seed`: must be a whole number of 0 to 2^64 - 1, not '-1'"},
  };
  for (const auto& [name, text, message] : rows) {
    SCOPED_TRACE(text);
    EXPECT_ERROR(parse_option(option(name), text), ErrorKind::kUsage, message);
  }
}

TEST(Schema, ChecksJson) {
  const auto options = schema().options();
  const auto check = [&](const OptionValues& values) { check_options("sort", options, values); };
  check({{"count", 1}, {"share", 1}, {"quick", true}, {"limit", 4}, {"weights", {1, 2}}});
  EXPECT_ERROR(check({{"cuont", 1}}), ErrorKind::kUsage, "method 'sort' has no option 'cuont' (did you mean 'count'?)");
  EXPECT_ERROR(check({{"count", "1"}}), ErrorKind::kUsage, "`count`: must be a whole number, not \"1\"");
  EXPECT_ERROR(check({{"count", 1.0}}), ErrorKind::kUsage, "`count`: must be a whole number, not 1.0");
  EXPECT_ERROR(check({{"count", 0}}), ErrorKind::kUsage, "`count`: must be at least 1, not 0");
  EXPECT_ERROR(check({{"share", std::numeric_limits<double>::infinity()}}), ErrorKind::kUsage, "`share`: must be a finite number, not inf");
  EXPECT_ERROR(check({{"names", {1}}}), ErrorKind::kUsage, "`names`: must be names, not [1]");
  EXPECT_ERROR(check({{"seed", -1}}), ErrorKind::kUsage, "`seed`");
  EXPECT_ERROR(check({{"limit", 4}}), ErrorKind::kUsage, "`limit` requires `quick`");
  EXPECT_ERROR(check({{"limit", 4}, {"quick", false}}), ErrorKind::kUsage, "`limit` requires `quick`");
}

TEST(Schema, TextsOfValuesAreInTheOrderOfTheOptions) {
  const auto options = schema().options();
  const OptionValues values = {{"weights", {1, 0.5}}, {"shape", "round"}, {"count", 4}, {"names", {"a", "b"}}, {"text", "a,b)"}};
  EXPECT_EQ(given_text(options, values), "(count=4,shape=round,names=[a,b],weights=[1,0.5],text=\"a,b)\")");
  EXPECT_EQ(given_text(options, OptionValues::object()), "");
  EXPECT_EQ(canonical_text(options, {{"count", 3}}), canonical_text(options, OptionValues::object()));
  EXPECT_EQ(canonical_text(options, {{"text", "elsewhere"}}), canonical_text(options, OptionValues::object()));  // counts by content
  EXPECT_EQ(canonical_text(options, values),
            R"({"count":4,"limit":null,"names":["a","b"],"quick":false,"seed":42,"shape":"round","share":0.5,"weights":[1,0.5]})");
}

/// What holds for every method of the table.
class EveryMethod : public ::testing::TestWithParam<const Method*> {};

TEST_P(EveryMethod, HasOptionsThatAreSaidAndFit) {
  const auto& method = *GetParam();
  EXPECT_FALSE(method.what.empty() || method.source.empty() || method.label.empty());
  for (const auto& option : method.options) {
    SCOPED_TRACE(option.name);
    EXPECT_FALSE(option.about.help.empty());
    if (!option.initial.is_null() && option.about.has_flag) {
      check_option(option, option.initial);
      EXPECT_EQ(parse_option(option, value_text(option.initial)), option.initial);
    }
    const auto& needs = option.about.needs;
    if (!needs.empty()) {
      EXPECT_NE(find_option(method.options, needs.substr(0, needs.find('='))), nullptr);
    }
    // A flag is one for all methods that have the option.
    for (const auto all : {reuse_methods(), learning_methods()}) {
      for (const auto& other : all) {
        const auto* same = find_option(other.options, option.name);
        const bool is_of_same_verb = (other.family == Family::kLearnt) == (method.family == Family::kLearnt);
        if (same == nullptr || !is_of_same_verb) continue;
        EXPECT_EQ(same->type, option.type) << other.name;
        EXPECT_EQ(same->words, option.words) << other.name;
        EXPECT_EQ(range_text(*same), range_text(option)) << other.name;
      }
    }
  }
}

std::vector<const Method*> all_methods() {
  std::vector<const Method*> all;
  for (const auto methods : {reuse_methods(), learning_methods()}) {
    for (const auto& method : methods) all.push_back(&method);
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Methods, EveryMethod, ::testing::ValuesIn(all_methods()), [](const auto& test) {
  std::string name = test.param->family == Family::kLearnt ? "adapt_" : "";
  for (const char c : test.param->name) name += c == '-' ? '_' : c;
  return name;
});

}  // namespace
}  // namespace quiver::methods
