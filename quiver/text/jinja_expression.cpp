// Expressions, with the precedence of jinja2's parser: if, or, and, not, comparisons, + -, ~, * / // %, **, signs, postfixes, filters.
#include <algorithm>

#include "quiver/text/jinja_parts.h"

namespace quiver::text::jinja {
namespace {

NodePtr parse_unary(Cursor& cursor, bool with_filters = true);

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData: return "text";
    case TokenKind::kVariableBegin: return "'{{'";
    case TokenKind::kVariableEnd: return "'}}'";
    case TokenKind::kBlockBegin: return "'{%'";
    case TokenKind::kBlockEnd: return "'%}'";
    case TokenKind::kString: return "a string";
    case TokenKind::kEnd: return "the end of the template";
    default: return format("'{}'", token.text);
  }
}

NodePtr constant_node(Cursor& cursor, std::int64_t line, Value value) {
  NodePtr node = cursor.make(Kind::kConstant, line);
  node->value = std::move(value);
  return node;
}

NodePtr number_node(Cursor& cursor, const Token& token) {
  return constant_node(cursor, token.line, token.kind == TokenKind::kFloat ? Value(token.number) : Value(token.integer));
}

NodePtr name_node(Cursor& cursor, const Token& token) {
  const bool is_true = token.text == "true" || token.text == "True";
  if (is_true || token.text == "false" || token.text == "False") return constant_node(cursor, token.line, Value(is_true));
  if (token.text == "none" || token.text == "None") return constant_node(cursor, token.line, Value(Type::kNone));
  if (token.text == "varargs") cursor.saw_varargs = true;
  if (token.text == "kwargs") cursor.saw_kwargs = true;
  if (token.text == "caller" || token.text == "self" || token.text == "super") {
    cursor.refuse(format("the name '{}'", token.text), token.line);
  }
  return cursor.make(Kind::kName, token.line, token.text);
}

/// The items of a list or a dict, up to the bracket `end`.
NodePtr parse_items(Cursor& cursor, Kind kind, std::string_view end) {
  NodePtr node = cursor.make(kind, cursor.next().line);
  while (!cursor.at_operator(end)) {
    if (!node->children.empty()) cursor.expect_operator(",");
    if (cursor.at_operator(end)) break;
    cursor.add(*node, parse_expression(cursor));
    if (kind == Kind::kList) continue;
    cursor.expect_operator(":");
    cursor.add(*node, parse_expression(cursor));
  }
  cursor.expect_operator(end);
  return node;
}

NodePtr parse_parentheses(Cursor& cursor) {
  const std::int64_t line = cursor.next().line;
  NodePtr node = cursor.at_operator(")") ? cursor.make(Kind::kTuple, line) : parse_tuple(cursor);
  cursor.expect_operator(")");
  return node;
}

NodePtr parse_primary(Cursor& cursor) {
  const auto nested = cursor.nested();
  const Token& token = cursor.current();
  switch (token.kind) {
    case TokenKind::kName: return name_node(cursor, cursor.next());
    case TokenKind::kInteger:
    case TokenKind::kFloat: return number_node(cursor, cursor.next());
    case TokenKind::kString: {
      const std::int64_t line = token.line;
      std::string text = cursor.next().text;
      while (cursor.current().kind == TokenKind::kString) text += cursor.next().text;
      return constant_node(cursor, line, cursor.constant(std::move(text)));
    }
    default: break;
  }
  if (cursor.at_operator("(")) return parse_parentheses(cursor);
  if (cursor.at_operator("[")) return parse_items(cursor, Kind::kList, "]");
  if (cursor.at_operator("{")) return parse_items(cursor, Kind::kDict, "}");
  cursor.syntax_error(format("unexpected {}", describe(token)));
}

void parse_arguments(Cursor& cursor, Node& call) {
  cursor.expect_operator("(");
  bool has_named = false;
  bool needs_comma = false;
  while (!cursor.at_operator(")")) {
    if (needs_comma) cursor.expect_operator(",");
    if (cursor.at_operator(")")) break;
    needs_comma = true;
    const std::int64_t line = cursor.current().line;
    if (cursor.at_operator("*") || cursor.at_operator("**")) cursor.refuse("an argument after '*'", line);
    if (cursor.current().kind == TokenKind::kName && Cursor::is_operator(cursor.look(), "=")) {
      std::string name = cursor.next().text;
      cursor.next();
      cursor.add(call, cursor.make(Kind::kKeyword, line, std::move(name), parse_expression(cursor)));
      has_named = true;
      continue;
    }
    if (has_named) cursor.syntax_error("a positional argument after a named one");
    cursor.add(call, parse_expression(cursor));
  }
  cursor.expect_operator(")");
}

NodePtr parse_call(Cursor& cursor, NodePtr callee) {
  NodePtr node = cursor.make(Kind::kCall, cursor.current().line, {}, std::move(callee));
  parse_arguments(cursor, *node);
  return node;
}

NodePtr parse_index(Cursor& cursor, NodePtr object) {
  const std::int64_t line = cursor.next().line;
  std::vector<NodePtr> parts(3);
  std::size_t num_colons = 0;
  while (!cursor.at_operator("]") && !cursor.at_operator(",")) {
    if (cursor.take_operator(":")) {
      if (++num_colons > 2) cursor.syntax_error("unexpected ':'");
      continue;
    }
    if (parts[num_colons]) cursor.syntax_error(format("expected ']', got {}", describe(cursor.current())));
    parts[num_colons] = parse_expression(cursor);
  }
  if (cursor.at_operator(",")) cursor.refuse("an index of several parts", line);
  cursor.expect_operator("]");
  if (num_colons == 0 && !parts[0]) cursor.syntax_error("an empty index");
  if (num_colons == 0) return cursor.make(Kind::kItem, line, {}, std::move(object), std::move(parts[0]));
  return cursor.make(Kind::kSlice, line, {}, std::move(object), std::move(parts[0]), std::move(parts[1]), std::move(parts[2]));
}

NodePtr parse_dot(Cursor& cursor, NodePtr object) {
  cursor.next();
  const Token token = cursor.next();
  if (token.kind == TokenKind::kInteger) return cursor.make(Kind::kItem, token.line, {}, std::move(object), number_node(cursor, token));
  if (token.kind != TokenKind::kName) cursor.syntax_error("expected a name or a number after '.'");
  NodePtr node = cursor.make(Kind::kAttribute, token.line, token.text, std::move(object));
  node->value = cursor.constant(token.text);
  return node;
}

NodePtr parse_postfix(Cursor& cursor, NodePtr node) {
  while (true) {
    if (cursor.at_operator(".")) {
      node = parse_dot(cursor, std::move(node));
    } else if (cursor.at_operator("[")) {
      node = parse_index(cursor, std::move(node));
    } else if (cursor.at_operator("(")) {
      node = parse_call(cursor, std::move(node));
    } else {
      return node;
    }
  }
}

/// Refuses an unknown name, unless jinja2 would look it up while it renders.
void check_known(Cursor& cursor, Known known, std::string_view what, std::string_view name, std::int64_t line) {
  if (known == Known::kYes || cursor.conditions > 0) return;
  if (known == Known::kNo) fail(ErrorKind::kBadFormat, "{}: line {}: there is no {} '{}'", cursor.origin(), line, what, name);
  cursor.refuse(format("the {} '{}'", what, name), line);
}

std::string dotted_name(Cursor& cursor) {
  std::string name = cursor.expect_name();
  while (cursor.take_operator(".")) name += "." + cursor.expect_name();
  return name;
}

NodePtr parse_test(Cursor& cursor, NodePtr operand) {
  const std::int64_t line = cursor.next().line;
  const bool is_negated = cursor.take_name("not");
  NodePtr node = cursor.make(Kind::kTest, line, dotted_name(cursor), std::move(operand));
  check_known(cursor, knows_test(node->name), "test", node->name, line);
  const Token& token = cursor.current();
  const bool is_literal = token.kind == TokenKind::kString || token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat;
  const bool is_word = token.kind == TokenKind::kName && token.text != "else" && token.text != "or" && token.text != "and";
  if (cursor.at_operator("(")) {
    parse_arguments(cursor, *node);
  } else if (is_literal || is_word || cursor.at_operator("[") || cursor.at_operator("{")) {
    if (cursor.at_name("is")) cursor.syntax_error("tests cannot be chained with 'is'");
    cursor.add(*node, parse_postfix(cursor, parse_primary(cursor)));
  }
  return is_negated ? cursor.make(Kind::kNot, line, {}, std::move(node)) : std::move(node);
}

NodePtr parse_filter_expression(Cursor& cursor, NodePtr node) {
  while (true) {
    if (cursor.at_operator("|")) {
      node = parse_filters(cursor, std::move(node), false);
    } else if (cursor.at_name("is")) {
      node = parse_test(cursor, std::move(node));
    } else if (cursor.at_operator("(")) {
      node = parse_call(cursor, std::move(node));
    } else {
      return node;
    }
  }
}

NodePtr parse_unary(Cursor& cursor, bool with_filters) {
  const auto nested = cursor.nested();
  NodePtr node;
  if (cursor.at_operator("-") || cursor.at_operator("+")) {
    const Token token = cursor.next();
    node = cursor.make(token.text == "-" ? Kind::kNegate : Kind::kPlus, token.line, {}, parse_unary(cursor, false));
  } else {
    node = parse_primary(cursor);
  }
  node = parse_postfix(cursor, std::move(node));
  return with_filters ? parse_filter_expression(cursor, std::move(node)) : std::move(node);
}

/// A chain of left-associative operators of one level; `operand` parses the next one.
template <typename Operand>
NodePtr parse_chain(Cursor& cursor, std::initializer_list<std::string_view> operators, const Operand& operand) {
  NodePtr left = operand(cursor);
  while (true) {
    const bool goes_on =
        cursor.current().kind == TokenKind::kOperator && std::ranges::find(operators, cursor.current().text) != operators.end();
    if (!goes_on) return left;
    const Token token = cursor.next();
    left = cursor.make(Kind::kBinary, token.line, token.text, std::move(left), operand(cursor));
  }
}

NodePtr parse_power(Cursor& cursor) {
  return parse_chain(cursor, {"**"}, [](Cursor& c) { return parse_unary(c); });
}
NodePtr parse_product(Cursor& cursor) { return parse_chain(cursor, {"*", "/", "//", "%"}, parse_power); }

NodePtr parse_concatenation(Cursor& cursor) {
  NodePtr first = parse_product(cursor);
  if (!cursor.at_operator("~")) return first;
  const std::int64_t line = first->line;
  NodePtr node = cursor.make(Kind::kConcat, line, {}, std::move(first));
  while (cursor.take_operator("~")) cursor.add(*node, parse_product(cursor));
  return node;
}

NodePtr parse_sum(Cursor& cursor) { return parse_chain(cursor, {"+", "-"}, parse_concatenation); }

/// The comparison that stands here, stepped over; empty if none does.
std::string take_comparison(Cursor& cursor) {
  for (const std::string_view op : {"==", "!=", "<=", ">=", "<", ">"}) {
    if (cursor.take_operator(op)) return std::string(op);
  }
  if (cursor.take_name("in")) return "in";
  if (cursor.at_name("not") && Cursor::is_name(cursor.look(), "in")) {
    cursor.next();
    cursor.next();
    return "not in";
  }
  return {};
}

NodePtr parse_comparison(Cursor& cursor) {
  NodePtr first = parse_sum(cursor);
  NodePtr node;
  const std::int64_t line = first->line;
  for (std::string op = take_comparison(cursor); !op.empty(); op = take_comparison(cursor)) {
    if (!node) node = cursor.make(Kind::kCompare, line, {}, std::move(first));
    cursor.add(*node, cursor.make(Kind::kOperand, line, op, parse_sum(cursor)));
  }
  return node ? std::move(node) : std::move(first);
}

NodePtr parse_not(Cursor& cursor) {
  if (!cursor.at_name("not")) return parse_comparison(cursor);
  const auto nested = cursor.nested();
  const std::int64_t line = cursor.next().line;
  return cursor.make(Kind::kNot, line, {}, parse_not(cursor));
}

template <typename Operand>
NodePtr parse_logical(Cursor& cursor, Kind kind, std::string_view word, const Operand& operand) {
  NodePtr left = operand(cursor);
  while (cursor.take_name(word)) {
    const std::int64_t line = left->line;
    left = cursor.make(kind, line, {}, std::move(left), operand(cursor));
  }
  return left;
}

NodePtr parse_and(Cursor& cursor) { return parse_logical(cursor, Kind::kAnd, "and", parse_not); }
NodePtr parse_or(Cursor& cursor) { return parse_logical(cursor, Kind::kOr, "or", parse_and); }

NodePtr parse_condition(Cursor& cursor) {
  NodePtr value = parse_or(cursor);
  while (cursor.take_name("if")) {
    ++cursor.conditions;
    const std::int64_t line = value->line;
    NodePtr test = parse_or(cursor);
    NodePtr node = cursor.make(Kind::kCondition, line, {}, std::move(test), std::move(value));
    if (cursor.take_name("else")) cursor.add(*node, parse_expression(cursor));
    --cursor.conditions;
    value = std::move(node);
  }
  return value;
}

}  // namespace

NodePtr parse_expression(Cursor& cursor, bool with_condition) {
  const auto nested = cursor.nested();
  return with_condition ? parse_condition(cursor) : parse_or(cursor);
}

NodePtr parse_tuple(Cursor& cursor, bool with_condition, std::string_view end) {
  const auto at_end = [&] {
    const TokenKind kind = cursor.current().kind;
    if (kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || cursor.at_operator(")")) return true;
    return !end.empty() && cursor.at_name(end);
  };
  if (at_end()) cursor.syntax_error(format("expected an expression, got {}", describe(cursor.current())));
  NodePtr first = parse_expression(cursor, with_condition);
  if (!cursor.at_operator(",")) return first;
  const std::int64_t line = first->line;
  NodePtr tuple = cursor.make(Kind::kTuple, line, {}, std::move(first));
  while (cursor.take_operator(",")) {
    if (at_end()) break;
    cursor.add(*tuple, parse_expression(cursor, with_condition));
  }
  return tuple;
}

NodePtr parse_filters(Cursor& cursor, NodePtr input, bool starts_inline) {
  while (starts_inline || cursor.at_operator("|")) {
    if (!starts_inline) cursor.next();
    starts_inline = false;
    std::string name = dotted_name(cursor);
    NodePtr node = cursor.make(Kind::kFilter, cursor.current().line, std::move(name), std::move(input));
    check_known(cursor, knows_filter(node->name), "filter", node->name, node->line);
    if (cursor.at_operator("(")) parse_arguments(cursor, *node);
    input = std::move(node);
  }
  return input;
}

}  // namespace quiver::text::jinja
