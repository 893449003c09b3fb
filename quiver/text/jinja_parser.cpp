// Statements, and the entry points of Jinja.
#include <algorithm>

#include "quiver/text/jinja_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text::jinja {

Token Cursor::next() {
  Token token = tokens_[position_];
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool Cursor::take_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  next();
  return true;
}

bool Cursor::take_name(std::string_view text) {
  if (!at_name(text)) return false;
  next();
  return true;
}

void Cursor::expect_operator(std::string_view text) {
  if (!take_operator(text)) syntax_error(format("expected '{}'", text));
}

std::string Cursor::expect_name() {
  if (current().kind != TokenKind::kName) syntax_error("expected a name");
  return next().text;
}

void Cursor::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) syntax_error(format("expected {}", what));
  next();
}

void Cursor::add(Node& parent, NodePtr child) const {
  if (child) {
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxTreeDepth) refuse(format("an expression of more than {} levels", kMaxTreeDepth), parent.line);
  }
  parent.children.push_back(std::move(child));
}

Value Cursor::constant(std::string text) const {
  Value value(Type::kString);
  value.heap = std::make_shared<Heap>();
  value.heap->text = std::move(text);
  return value;
}

void Cursor::syntax_error(std::string_view what) const { fail(ErrorKind::kBadFormat, "{}: line {}: {}", origin_, current().line, what); }

void Cursor::refuse(std::string_view what, std::int64_t line) const {
  fail(ErrorKind::kUnsupported, "{}: line {}: {}, which Quiver does not implement", origin_, line, what);
}

namespace {

NodePtr parse_body(Cursor& cursor, std::initializer_list<std::string_view> ends, std::string_view tag, std::int64_t line);

NodePtr target_name(Cursor& cursor, bool with_member) {
  const std::int64_t line = cursor.current().line;
  const std::string name = cursor.expect_name();
  for (const std::string_view word : {"true", "false", "none", "True", "False", "None"}) {
    if (name == word) cursor.syntax_error(format("cannot assign to '{}'", name));
  }
  if (!with_member || !cursor.take_operator(".")) return cursor.make(Kind::kName, line, name);
  NodePtr node = cursor.make(Kind::kMember, line, name);
  node->value = cursor.constant(cursor.expect_name());
  return node;
}

/// Parses the body of `tag` up to `end` and steps over that.
NodePtr body_until(Cursor& cursor, std::string_view end, std::string_view tag, std::int64_t line) {
  NodePtr body = parse_body(cursor, {end}, tag, line);
  cursor.next();
  return body;
}

/// A body that `break` cannot leave towards a loop outside.
NodePtr closed_body(Cursor& cursor, std::string_view end, std::string_view tag, std::int64_t line) {
  const std::int64_t loops = std::exchange(cursor.loops, 0);
  NodePtr body = body_until(cursor, end, tag, line);
  cursor.loops = loops;
  return body;
}

NodePtr parse_if(Cursor& cursor, std::int64_t line) {
  NodePtr node = cursor.make(Kind::kIf, line);
  ++cursor.conditions;
  while (true) {
    cursor.add(*node, parse_tuple(cursor, false));
    cursor.add(*node, parse_body(cursor, {"elif", "else", "endif"}, "if", line));
    if (cursor.take_name("elif")) continue;
    cursor.add(*node, cursor.take_name("else") ? body_until(cursor, "endif", "if", line) : (cursor.next(), nullptr));
    break;
  }
  --cursor.conditions;
  return node;
}

NodePtr parse_for(Cursor& cursor, std::int64_t line) {
  NodePtr node = cursor.make(Kind::kFor, line);
  cursor.add(*node, parse_target(cursor, false, "in"));
  if (!cursor.take_name("in")) cursor.syntax_error("expected 'in'");
  cursor.add(*node, parse_tuple(cursor, false, "recursive"));
  cursor.add(*node, cursor.take_name("if") ? parse_expression(cursor) : nullptr);
  if (cursor.at_name("recursive")) cursor.refuse("a recursive loop", line);
  ++cursor.loops;
  cursor.add(*node, parse_body(cursor, {"else", "endfor"}, "for", line));
  --cursor.loops;
  cursor.add(*node, cursor.take_name("else") ? body_until(cursor, "endfor", "for", line) : (cursor.next(), nullptr));
  return node;
}

NodePtr parse_set(Cursor& cursor, std::int64_t line) {
  NodePtr target = parse_target(cursor, true);
  if (cursor.take_operator("=")) {
    return cursor.make(Kind::kSet, line, {}, std::move(target), parse_tuple(cursor));
  }
  NodePtr filter = cursor.at_operator("|") ? parse_filters(cursor, cursor.make(Kind::kInput, line), false) : nullptr;
  return cursor.make(Kind::kSetBlock, line, {}, std::move(target), std::move(filter), body_until(cursor, "endset", "set", line));
}

NodePtr parse_macro(Cursor& cursor, std::int64_t line) {
  NodePtr node = cursor.make(Kind::kMacro, line, target_name(cursor, false)->name);
  cursor.expect_operator("(");
  bool has_default = false;
  while (!cursor.at_operator(")")) {
    if (!node->children.empty()) cursor.expect_operator(",");
    NodePtr parameter = target_name(cursor, false);
    parameter->kind = Kind::kKeyword;
    if (cursor.take_operator("=")) {
      has_default = true;
      cursor.add(*parameter, parse_expression(cursor));
    } else if (has_default) {
      cursor.syntax_error("a parameter without default after one with a default");
    }
    cursor.add(*node, std::move(parameter));
  }
  cursor.expect_operator(")");
  const bool saw_varargs = std::exchange(cursor.saw_varargs, false);
  const bool saw_kwargs = std::exchange(cursor.saw_kwargs, false);
  cursor.add(*node, closed_body(cursor, "endmacro", "macro", line));
  node->uses_varargs = std::exchange(cursor.saw_varargs, saw_varargs);
  node->uses_kwargs = std::exchange(cursor.saw_kwargs, saw_kwargs);
  return node;
}

NodePtr parse_filter_block(Cursor& cursor, std::int64_t line) {
  NodePtr filters = parse_filters(cursor, cursor.make(Kind::kInput, line), true);
  return cursor.make(Kind::kFilterBlock, line, {}, std::move(filters), body_until(cursor, "endfilter", "filter", line));
}

NodePtr parse_with(Cursor& cursor, std::int64_t line) {
  NodePtr node = cursor.make(Kind::kWith, line);
  while (cursor.current().kind != TokenKind::kBlockEnd && !cursor.at_operator(":")) {
    if (!node->children.empty()) cursor.expect_operator(",");
    cursor.add(*node, parse_target(cursor, false));
    cursor.expect_operator("=");
    cursor.add(*node, parse_expression(cursor));
  }
  cursor.add(*node, body_until(cursor, "endwith", "with", line));
  return node;
}

NodePtr parse_jump(Cursor& cursor, Kind kind, std::string_view tag, std::int64_t line) {
  if (cursor.loops == 0) cursor.syntax_error(format("'{}' outside a loop", tag));
  return cursor.make(kind, line);
}

NodePtr parse_statement(Cursor& cursor) {
  const std::int64_t line = cursor.current().line;
  if (cursor.current().kind != TokenKind::kName) cursor.syntax_error("expected a tag name");
  const std::string tag = cursor.current().text;
  for (const std::string_view word : {"call", "include", "import", "from", "extends", "block", "autoescape", "do", "trans", "debug"}) {
    if (tag == word) cursor.refuse(format("the statement '{}'", tag), line);
  }
  cursor.next();
  if (tag == "if") return parse_if(cursor, line);
  if (tag == "for") return parse_for(cursor, line);
  if (tag == "set") return parse_set(cursor, line);
  if (tag == "macro") return parse_macro(cursor, line);
  if (tag == "filter") return parse_filter_block(cursor, line);
  if (tag == "with") return parse_with(cursor, line);
  if (tag == "print") return cursor.make(Kind::kPrint, line, {}, parse_tuple(cursor));
  if (tag == "break") return parse_jump(cursor, Kind::kBreak, tag, line);
  if (tag == "continue") return parse_jump(cursor, Kind::kContinue, tag, line);
  if (tag == "generation") return cursor.make(Kind::kGeneration, line, {}, closed_body(cursor, "endgeneration", "generation", line));
  fail(ErrorKind::kBadFormat, "{}: line {}: an unknown tag '{}'", cursor.origin(), line, tag);
}

/// Statements up to a tag of `ends`, whose name becomes the current token; up to the end of the template if there are none.
NodePtr parse_statements(Cursor& cursor, std::initializer_list<std::string_view> ends, std::string_view tag, std::int64_t line) {
  const auto nested = cursor.nested();
  NodePtr block = cursor.make(Kind::kBlock, cursor.current().line);
  while (true) {
    switch (cursor.current().kind) {
      case TokenKind::kData: {
        NodePtr node = cursor.make(Kind::kText, cursor.current().line);
        node->value = cursor.constant(cursor.next().text);
        cursor.add(*block, std::move(node));
        break;
      }
      case TokenKind::kVariableBegin: {
        const std::int64_t print_line = cursor.next().line;
        cursor.add(*block, cursor.make(Kind::kPrint, print_line, {}, parse_tuple(cursor)));
        cursor.expect(TokenKind::kVariableEnd, "'}}'");
        break;
      }
      case TokenKind::kBlockBegin: {
        cursor.next();
        const bool is_end = cursor.current().kind == TokenKind::kName && std::ranges::find(ends, cursor.current().text) != ends.end();
        if (is_end) return block;
        cursor.add(*block, parse_statement(cursor));
        cursor.expect(TokenKind::kBlockEnd, "'%}'");
        break;
      }
      default:
        if (ends.size() == 0) return block;
        cursor.syntax_error(format("the template ends inside '{}' of line {}", tag, line));
    }
  }
}

NodePtr parse_body(Cursor& cursor, std::initializer_list<std::string_view> ends, std::string_view tag, std::int64_t line) {
  cursor.take_operator(":");
  cursor.expect(TokenKind::kBlockEnd, "'%}'");
  return parse_statements(cursor, ends, tag, line);
}

}  // namespace

NodePtr parse_template(Cursor& cursor) { return parse_statements(cursor, {}, "", 1); }

NodePtr parse_target(Cursor& cursor, bool with_member, std::string_view end) {
  const auto nested = cursor.nested();
  const auto one = [&]() -> NodePtr {
    if (!cursor.take_operator("(")) return target_name(cursor, with_member);
    NodePtr inner = parse_target(cursor, false, end);
    cursor.expect_operator(")");
    return inner;
  };
  NodePtr first = one();
  if (!cursor.at_operator(",")) return first;
  const std::int64_t line = first->line;
  NodePtr tuple = cursor.make(Kind::kTuple, line, {}, std::move(first));
  while (cursor.take_operator(",")) {
    if (cursor.at_operator("=") || cursor.at_operator(")") || (!end.empty() && cursor.at_name(end))) break;
    cursor.add(*tuple, one());
  }
  return tuple;
}

}  // namespace quiver::text::jinja

namespace quiver::text {

Jinja Jinja::parse(std::string_view source, std::string origin, JinjaDialect dialect) {
  if (static_cast<std::int64_t>(source.size()) > jinja::kMaxTemplateBytes) {
    fail(ErrorKind::kBadFormat, "{}: a template of {} bytes; at most {} are read", origin, source.size(), jinja::kMaxTemplateBytes);
  }
  if (!is_valid_utf8(source)) fail(ErrorKind::kBadFormat, "{}: the template is not valid UTF-8", origin);
  auto parsed = std::make_shared<jinja::Template>();
  parsed->origin = std::move(origin);
  parsed->dialect = dialect;
  jinja::Cursor cursor(jinja::tokenize(source, parsed->origin, dialect), parsed->origin);
  parsed->body = jinja::parse_template(cursor);
  jinja::mark_hidden_names(*parsed->body);
  return Jinja(std::move(parsed));
}

std::string Jinja::render(const nlohmann::ordered_json& variables, const JinjaOptions& options) const {
  return jinja::render(*parsed_, variables, options);
}

}  // namespace quiver::text
