// Refusals and bounds of the Jinja engine; jinja_golden_test.cpp has what templates render.
#include "quiver/text/jinja.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"
#include "quiver/text/jinja_parts.h"

namespace quiver::text {
namespace {

using Json = nlohmann::ordered_json;

std::string render(std::string_view source, const Json& variables = Json::object(), const JinjaOptions& options = {}) {
  return Jinja::parse(source, "t.jinja").render(variables, options);
}

template <typename F>
void expect_error(ErrorKind kind, const std::string& part, const F& run) {
  EXPECT_ERROR(run(), kind, part);
}

void expect_refused_by_parser(const std::string& source, const std::string& part) {
  expect_error(ErrorKind::kUnsupported, part, [&] { Jinja::parse(source, "t.jinja"); });
}
void expect_refused(const std::string& source, const std::string& part) {
  expect_error(ErrorKind::kUnsupported, part, [&] { render(source); });
}
void expect_bad(const std::string& source, const std::string& part) {
  expect_error(ErrorKind::kBadFormat, part, [&] { render(source); });
}

std::string repeated(std::string_view part, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += part;
  return out;
}

TEST(Jinja, RendersAConversation) {
  const std::string source =
      "{% for m in messages %}\n<|{{ m.role }}|>{{ m['content'] | trim }}\n{% endfor %}\n{% if add_generation_prompt %}<|assistant|>{% "
      "endif %}";
  const Json variables = {{"messages", {{{"role", "user"}, {"content", " Hi "}}}}, {"add_generation_prompt", true}};
  EXPECT_EQ(render(source, variables), "<|user|>Hi\n<|assistant|>");
}

TEST(Jinja, RefusesStatementsByNameAndLine) {
  for (const char* tag : {"include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'", "block b", "call m()", "autoescape true"}) {
    const std::string name = std::string(tag).substr(0, std::string(tag).find(' '));
    expect_refused_by_parser("\n{% " + std::string(tag) + " %}", "t.jinja: line 2: the statement '" + name + "'");
  }
  expect_refused_by_parser("{% for x in y recursive %}{% endfor %}", "line 1: a recursive loop");
}

TEST(Jinja, RefusesFiltersTestsAndNamesByNameAndLine) {
  expect_refused_by_parser("a\nb{{ 1 | pprint }}", "line 2: the filter 'pprint'");
  expect_refused_by_parser("{{ 1 is escaped }}", "line 1: the test 'escaped'");
  expect_refused_by_parser("{{ self }}", "the name 'self'");
  expect_refused_by_parser("{{ f(*x) }}", "an argument after '*'");
  expect_refused_by_parser("{{ x[1, 2] }}", "an index of several parts");
  expect_refused_by_parser("{{ é }}", "a name with characters other than ASCII");
  expect_refused_by_parser("{{ 0x1F }}", "a number that is not decimal");
  expect_refused_by_parser("{{ 99999999999999999999 }}", "an integer beyond 64 bits");
  expect_refused("\n{{ cycler }}", "line 2: the function 'cycler'");
}

TEST(Jinja, RefusesAFilterUnderAConditionOnlyWhenItRuns) {
  EXPECT_EQ(render("{% if false %}{{ 1 | pprint }}{% endif %}ok"), "ok");
  expect_refused("{% if true %}\n{{ 1 | pprint }}{% endif %}", "line 2: the filter 'pprint'");
  EXPECT_EQ(render("{{ 'ok' if true else 1 | from_json }}"), "ok");
  expect_bad("{% if true %}\n{{ 1 | from_json }}{% endif %}", "line 2: there is no filter 'from_json'");
  expect_bad("{{ 1 | from_json }}", "line 1: there is no filter 'from_json'");
  expect_bad("{{ 1 is odd_one }}", "line 1: there is no test 'odd_one'");
}

TEST(Jinja, RefusesMethodsAndAttributesByName) {
  expect_refused("{{ 'a'.center(5) }}", "str.center()");
  expect_refused("{{ 'a'.find('a', 1) }}", "the bounds of str.find()");
  expect_refused("{{ '{:>5}'.format(1) }}", "the field '{:>5}' of str.format()");
  expect_refused("{{ '%5d' % 1 }}", "the conversion '%5'");
  expect_refused("{{ 1.5.real }}", "the attribute 'real' of float");
  expect_refused("{{ 'x'.upper }}", "the text of a method");
  expect_refused("{{ namespace() }}", "the text of a namespace");
  expect_refused("{{ ('a'|safe).upper() }}", "str.upper() on a string of the filter 'safe'");
  expect_refused("{{ strftime_now('%f') }}", "the conversion '%f' of strftime_now()");
  expect_refused("{% for x in [1] %}{{ loop.changed(x) }}{% endfor %}", "loop.changed()");
}

TEST(Jinja, NamesTheLineOfASyntaxError) {
  expect_bad("a\n{% if x %}\n", "line 2: the template ends inside 'if' of line 2");
  expect_bad("{{ 1 +\n }}", "line 2: unexpected '}}'");
  expect_bad("{% nonsense %}", "line 1: an unknown tag 'nonsense'");
  expect_bad("{{ 'a }}", "a string without its end");
  expect_bad("{# a", "a comment without '#}'");
  expect_bad("{% raw %}a", "'raw' without 'endraw'");
  expect_bad("{% break %}", "'break' outside a loop");
  expect_bad("{{ (1] }}", "an unexpected ']' where ')' should be");
  expect_bad("\xFF", "not valid UTF-8");
}

TEST(Jinja, NamesWhatIsUndefined) {
  expect_bad("\n{{ tools.x }}", "t.jinja: line 2: 'tools' is undefined, and has no attribute 'x'");
  expect_bad("{{ none.x.y }}", "'x' is undefined");
  expect_bad("{{ a.b() }}", "'a' is undefined");
  expect_bad("{{ 'a' + name }}", "'name' is undefined, as an operand of '+'");
}

TEST(Jinja, LeavesLineEndsOfTasksAsTheyAre) {
  const auto render_task = [](std::string_view source, const Json& row) {
    return Jinja::parse(source, "t.yaml: doc_to_text", JinjaDialect::kLmEval).render(row);
  };
  EXPECT_EQ(render_task("{{ a }}\n", {{"a", 1}}), "1\n");
  EXPECT_EQ(render_task("  {% if a %}\nb\n  {% endif %}\n{# c #}\n", {{"a", 1}}), "  \nb\n  \n\n");
  EXPECT_EQ(render_task("  {%- if a -%}\n b{%- endif -%}\n", {{"a", 1}}), "b");
  EXPECT_EQ(render("  {% if a %}\nb\n  {% endif %}\n{# c #}\n", {{"a", 1}}), "b\n");
}

TEST(Jinja, RefusesWhatIsUndefinedInTasks) {
  const Json row = {{"a", {{"b", nullptr}}}, {"l", {1}}};
  const auto expect_undefined = [&](const std::string& source, const std::string& part) {
    EXPECT_ERROR(Jinja::parse(source, "t.yaml: doc_to_text", JinjaDialect::kLmEval).render(row), ErrorKind::kBadFormat, part);
  };
  expect_undefined("\n{{ x }}", "t.yaml: doc_to_text: line 2: 'x' is undefined");
  expect_undefined("{{ a.c }}", "'c' is undefined");
  expect_undefined("{{ a['c'] }}", "'c' is undefined");
  expect_undefined("{{ l[1] }}", "is undefined");
  expect_undefined("{% if x %}{% endif %}", "'x' is undefined");
  expect_undefined("{% for y in x %}{% endfor %}", "'x' is undefined");
  expect_undefined("{{ x == 1 }}", "'x' is undefined");
  expect_undefined("{{ x ~ 'a' }}", "'x' is undefined");
  expect_undefined("{{ x | join }}", "'x' is undefined");
  expect_undefined("{{ 'a' if false }}", "is undefined");
  const auto rendered = [&](const std::string& source) { return Jinja::parse(source, "t", JinjaDialect::kLmEval).render(row); };
  EXPECT_EQ(rendered("{{ x | default('d') }}{{ a.c | d('e') }}{{ x is defined }}{{ x is undefined }}{{ a.b }}"), "deFalseTrueNone");
  EXPECT_ERROR(rendered("{{ a | tojson }}"), ErrorKind::kUnsupported, "the filter 'tojson', which Quiver does not implement for tasks");
}

TEST(Jinja, RaisesTheTemplatesOwnMessageAsAUsageError) {
  expect_error(ErrorKind::kUsage, "t.jinja: Roles must alternate", [] { render("{{ raise_exception('Roles must ' + 'alternate') }}"); });
  expect_error(ErrorKind::kUsage, "must be an object", [] { render("", Json::array()); });
}

TEST(Jinja, TakesTheTimeFromItsOptions) {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 26;
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}", Json::object(), {.now = now}), "26 Jul 2024");
  EXPECT_EQ(render("{{ strftime_now('%Y') | length }}"), "4");
}

TEST(Jinja, BoundsTheSizeOfATemplate) {
  EXPECT_EQ(render(std::string(jinja::kMaxTemplateBytes, 'x')).size(), static_cast<std::size_t>(jinja::kMaxTemplateBytes));
  expect_bad(std::string(jinja::kMaxTemplateBytes + 1, 'x'), "a template of 1048577 bytes; at most 1048576 are read");
}

TEST(Jinja, BoundsNesting) {
  EXPECT_EQ(render("{{ " + repeated("(", 100) + "1" + repeated(")", 100) + " }}"), "1");
  expect_refused_by_parser("{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}", "nesting of more than");
  expect_refused_by_parser("{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}", "nesting of more than");
  expect_refused_by_parser("{{ " + repeated("-", 100000) + "1 }}", "nesting of more than");
  expect_refused_by_parser("{{ " + repeated("not ", 100000) + "1 }}", "nesting of more than");
  expect_refused_by_parser("{{ 1 " + repeated("+ 1", 100000) + " }}", "an expression of more than 300 levels");
  expect_refused_by_parser("{{ x" + repeated(".x", 100000) + " }}", "an expression of more than 300 levels");
  expect_refused_by_parser("{{ x" + repeated("|trim", 100000) + " }}", "an expression of more than 300 levels");
  expect_refused_by_parser(repeated("{% if x %}", 50000), "nesting of more than");
  expect_refused_by_parser("{% for " + repeated("(", 50000) + repeated(")", 50000) + " %}", "nesting of more than");
}

TEST(Jinja, BoundsRecursion) {
  expect_refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion of more than 1500 levels");
  expect_refused("{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}",
                 "values of more than 600 levels");
}

TEST(Jinja, BoundsSteps) {
  const std::string loops = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
  expect_refused(loops, "more than 20000000 steps");
  expect_error(ErrorKind::kUnsupported, "more than 100 steps",
               [] { render("{% for i in range(90) %}{{ i }}{% endfor %}", Json::object(), {.max_steps = 100}); });
}

TEST(Jinja, BoundsOutputAndMemory) {
  expect_refused("{% set s = 'x' * 1000000 %}{% for i in range(100) %}{{ s }}{% endfor %}", "an output of more than 16777216 bytes");
  expect_refused("{{ 'x' * 100000000 }}", "a string of more than 16777216 bytes");
  expect_refused("{% set ns = namespace(s='xx') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
                 "a string of more than 16777216 bytes");
  expect_refused("{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}", "bytes of values");
  expect_refused("{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + ['x' * 1000000] %}{% endfor %}",
                 "bytes of values");
  expect_refused("{{ [1] * 1000000000 }}", "bytes of values");
}

TEST(Jinja, RefusesIntegersBeyond64Bits) {
  expect_refused("{{ 9223372036854775807 + 1 }}", "an integer beyond 64 bits");
  expect_refused("{{ 2 ** 64 }}", "an integer beyond 64 bits");
  expect_refused("{{ '9' * 30 | int }}{{ ('9' * 30) | int }}", "an integer beyond 64 bits");
  EXPECT_EQ(render("{{ 2 ** 62 }} {{ -9223372036854775807 - 1 }}"), "4611686018427387904 -9223372036854775808");
}

TEST(Jinja, FreesValuesThatReferToEachOther) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns] %}"
                   "{% for i in [1] %}{% set ns.loop = loop %}{% macro m() %}{{ i }}{% endmacro %}{% set ns.m = m %}{{ m() }}{% endfor %}"
                   "{{ ns.loop.index }}"),
            "11");
  expect_refused("{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}{% endmacro %}{% set ns.m = m %}{% endfor %}{{ ns.m() }}",
                 "a call of the macro 'm' outside the block that defines it");
}

TEST(Jinja, RendersFromManyThreads) {
  const Jinja jinja = Jinja::parse("{% set x = 'a' ~ n %}{% for i in range(50) %}{{ x }}{{ 'lit' }}{% endfor %}", "t.jinja");
  std::vector<std::string> out(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < out.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) out[t] = jinja.render({{"n", t}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(out[3], repeated("a3lit", 50));
}

}  // namespace
}  // namespace quiver::text
