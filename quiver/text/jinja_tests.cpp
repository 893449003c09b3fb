// Tests after `is`.
#include <cmath>

#include "quiver/text/jinja_parts.h"

namespace quiver::text::jinja {
namespace {

/// Python's str.isupper or str.islower of ASCII text.
bool has_case(Context& context, const std::string& text, bool is_upper) {
  bool has_letter = false;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) context.refuse("a test of the case of characters other than ASCII");
    const bool up = c >= 'A' && c <= 'Z';
    const bool low = c >= 'a' && c <= 'z';
    if (is_upper ? low : up) return false;
    has_letter = has_letter || up || low;
  }
  return has_letter;
}

bool is_same(Context& context, const Value& a, const Value& b) {
  if (a.type != b.type) return false;
  if (a.is(Type::kNone)) return true;
  if (a.is(Type::kBool)) return a.boolean == b.boolean;
  if (a.heap && a.heap == b.heap) return true;
  context.refuse("the test 'sameas' for {}", type_name(a));
}

struct NamedTest {
  std::string_view name;
  bool (*test)(Context&, const Value&);
};

constexpr NamedTest kUnaryTests[] = {
    {"defined", [](Context&, const Value& v) { return !v.is(Type::kUndefined); }},
    {"undefined", [](Context&, const Value& v) { return v.is(Type::kUndefined); }},
    {"none", [](Context&, const Value& v) { return v.is(Type::kNone); }},
    {"boolean", [](Context&, const Value& v) { return v.is(Type::kBool); }},
    {"true", [](Context&, const Value& v) { return v.is(Type::kBool) && v.boolean; }},
    {"false", [](Context&, const Value& v) { return v.is(Type::kBool) && !v.boolean; }},
    {"integer", [](Context&, const Value& v) { return v.is(Type::kInt); }},
    {"float", [](Context&, const Value& v) { return v.is(Type::kFloat); }},
    {"number", [](Context&, const Value& v) { return v.is_number(); }},
    {"string", [](Context&, const Value& v) { return v.is_string(); }},
    {"mapping", [](Context&, const Value& v) { return v.is(Type::kDict); }},
    {"sequence",
     [](Context&, const Value& v) {
       return v.is_one_of({Type::kUndefined, Type::kString, Type::kList, Type::kTuple, Type::kDict, Type::kRange});
     }},
    {"iterable", [](Context&, const Value& v) { return is_iterable(v); }},
    {"callable",
     [](Context&, const Value& v) {
       return v.is_one_of({Type::kUndefined, Type::kMacro, Type::kMethod, Type::kFunction, Type::kLoop});
     }},
    {"lower", [](Context& c, const Value& v) { return has_case(c, str(c, v), false); }},
    {"upper", [](Context& c, const Value& v) { return has_case(c, str(c, v), true); }},
    {"odd", [](Context& c, const Value& v) { return equal(c, binary(c, "%", v, c.integer(2)), c.integer(1)); }},
    {"even", [](Context& c, const Value& v) { return equal(c, binary(c, "%", v, c.integer(2)), c.integer(0)); }},
};

struct NamedComparison {
  std::string_view name;
  std::string_view op;
};

constexpr NamedComparison kComparisons[] = {
    {"==", "=="}, {"eq", "=="}, {"equalto", "=="}, {"!=", "!="}, {"ne", "!="},      {">", ">"},   {"gt", ">"},  {"greaterthan", ">"},
    {">=", ">="}, {"ge", ">="}, {"<", "<"},        {"lt", "<"},  {"lessthan", "<"}, {"<=", "<="}, {"le", "<="}, {"in", "in"},
};

}  // namespace

Known knows_test(std::string_view name) {
  if (find_row(kUnaryTests, name) != nullptr || find_row(kComparisons, name) != nullptr) return Known::kYes;
  if (name == "divisibleby" || name == "sameas") return Known::kYes;
  return name == "filter" || name == "test" || name == "escaped" ? Known::kInJinja : Known::kNo;
}

bool apply_test(Context& context, std::string_view name, const Value& input, const Arguments& arguments) {
  context.work();
  const std::string callee = format("the test '{}'", name);
  if (const NamedTest* row = find_row(kUnaryTests, name)) {
    bind_arguments(context, callee, arguments, {});
    return row->test(context, input);
  }
  if (knows_test(name) == Known::kNo) context.raise("there is no test '{}'", name);
  if (knows_test(name) != Known::kYes) context.refuse("the test '{}', which Quiver does not implement", name);
  const Value other = *bind_arguments(context, callee, arguments, {"other"}, 1)[0];
  if (name == "sameas") return is_same(context, input, other);
  if (name == "divisibleby") return equal(context, binary(context, "%", input, other), context.integer(0));
  return compare(context, find_row(kComparisons, name)->op, input, other);
}

}  // namespace quiver::text::jinja
