// Parts of the Jinja engine: tokens, the parsed tree, values, and the operations that evaluate them. Only jinja*.cpp include it.
//
//   jinja_lexer       source text -> tokens
//   jinja_expression  tokens -> trees of expressions
//   jinja_parser      tokens -> trees of statements
//   jinja_scopes      names that a frame hides until it sets them
//   jinja_value       values, their bounds, equality and order
//   jinja_text        Python's str, repr and json.dumps, and its operations on strings
//   jinja_operators   operators, subscripts and slices
//   jinja_methods     attributes and methods of values
//   jinja_filters     filters
//   jinja_numbers     filters that make numbers
//   jinja_tests       tests after `is`
//   jinja_functions   global functions
//   jinja_render      the tree walk
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/text/jinja.h"

namespace quiver::text::jinja {

// Bounds. Templates are untrusted code; exceeding a bound is kUnsupported (kBadFormat for the size of the source).
/// The source of a template.
inline constexpr std::int64_t kMaxTemplateBytes = std::int64_t{1} << 20;
/// Recursion of the parser; a statement counts two levels and a pair of parentheses three.
inline constexpr std::int64_t kMaxNesting = 400;
/// Height of an expression's tree; `a + b + c + ...` counts one per operator.
inline constexpr std::int64_t kMaxTreeDepth = 300;
/// Recursion of the tree walk, calls of macros included.
inline constexpr std::int64_t kMaxEvaluationDepth = 1500;
/// Containers inside each other, those of the variables included.
inline constexpr std::int64_t kMaxValueDepth = 600;
/// A rendering, or one string of it.
inline constexpr std::int64_t kMaxOutputBytes = std::int64_t{16} << 20;
/// Strings and containers alive at one time.
inline constexpr std::int64_t kMaxLiveBytes = std::int64_t{256} << 20;
/// The sandbox's own bound of range(), where jinja2 raises an error.
inline constexpr std::int64_t kMaxRange = 100000;

enum class Type {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kView,       ///< dict.keys(), dict.values() or dict.items()
  kRange,      ///< range(), its items laid out
  kGenerator,  ///< what lazy filters return: no length, read once
  kNamespace,
  kMacro,
  kMethod,    ///< a method bound to its value
  kFunction,  ///< a global function
  kLoop,
};

struct Heap;
struct Node;
struct Scope;
struct Loop;
struct Namespace;

/// A Python value. A cheap copy; what `heap` holds is immutable, except a generator's place.
struct Value {
  Type type = Type::kUndefined;
  union {
    bool boolean;
    std::int64_t integer;
    double number;
    Namespace* space = nullptr;  ///< owned by the Context
  };
  std::shared_ptr<Heap> heap;

  Value() = default;
  explicit Value(Type t) : type(t) {}
  explicit Value(bool b) : type(Type::kBool), boolean(b) {}
  explicit Value(std::int64_t i) : type(Type::kInt), integer(i) {}
  explicit Value(double d) : type(Type::kFloat), number(d) {}

  bool is(Type t) const { return type == t; }
  bool is_one_of(std::initializer_list<Type> types) const { return std::ranges::find(types, type) != types.end(); }
  bool is_string() const { return type == Type::kString; }
  /// True for bool, int and float.
  bool is_number() const { return type == Type::kBool || type == Type::kInt || type == Type::kFloat; }
  /// True for bool and int.
  bool is_integral() const { return type == Type::kBool || type == Type::kInt; }
  std::int64_t as_integer() const { return type == Type::kBool ? static_cast<std::int64_t>(boolean) : integer; }
  double as_number() const { return type == Type::kFloat ? number : static_cast<double>(as_integer()); }
  const std::string& text() const;
  const std::vector<Value>& items() const;
};

/// Bytes alive of one rendering. Each Heap gives its share back when it goes.
struct LiveBytes {
  std::int64_t count = 0;
};

/// What a value other than a number points to; which members count depends on the type.
struct Heap {
  std::string text;          ///< string; name of an undefined, a method or a function; repr of a range; a view's "dict_items"
  std::vector<Value> items;  ///< container; a dict's keys and values in turn; a method's receiver
  std::size_t next = 0;      ///< generator: the first item not read yet
  bool is_markup = false;    ///< string: made by the filter `safe`
  const Node* macro = nullptr;
  std::weak_ptr<Scope> scope;  ///< where the macro was defined
  std::shared_ptr<Loop> loop;
  std::int64_t depth = 0;
  std::int64_t bytes = 0;
  std::shared_ptr<LiveBytes> live;

  Heap() = default;
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap() {
    if (live) live->count -= bytes;
  }
};

inline const std::string& Value::text() const { return heap->text; }
inline const std::vector<Value>& Value::items() const { return heap->items; }

/// The mutable object that namespace() returns, or the names of a scope.
struct Namespace {
  std::vector<std::pair<std::string, Value>> members;

  Value* find(std::string_view name) {
    const auto place = std::ranges::find(members, name, &std::pair<std::string, Value>::first);
    return place == members.end() ? nullptr : &place->second;
  }
  void set(std::string_view name, const Value& value) {
    if (Value* place = find(name)) {
      *place = value;
    } else {
      members.emplace_back(name, value);
    }
  }
};

// Tokens and trees.

enum class TokenKind { kData, kVariableBegin, kVariableEnd, kBlockBegin, kBlockEnd, kName, kString, kInteger, kFloat, kOperator, kEnd };

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  ///< data, name, operator, or the string's value
  std::int64_t integer = 0;
  double number = 0;
  std::int64_t line = 1;
};

/// The tokens of a template with jinja2's trimming done; the last one is kEnd.
std::vector<Token> tokenize(std::string_view source, const std::string& origin, JinjaDialect dialect = JinjaDialect::kTransformers);

enum class Kind {
  // Expressions. `children` in order; `name` and `value` where noted.
  kConstant,   ///< value
  kName,       ///< name
  kInput,      ///< what a filter block filters
  kTuple,      ///< items
  kList,       ///< items
  kDict,       ///< keys and values in turn
  kNegate,     ///< operand
  kPlus,       ///< operand
  kNot,        ///< operand
  kAnd,        ///< left, right
  kOr,         ///< left, right
  kBinary,     ///< name: operator; left, right
  kConcat,     ///< operands of ~
  kCompare,    ///< first operand, then kOperand nodes
  kOperand,    ///< name: operator; right
  kCondition,  ///< test, value if true, value if false (or absent)
  kAttribute,  ///< name; object
  kItem,       ///< object, index
  kSlice,      ///< object, then start, stop, step; nullptr if absent
  kCall,       ///< callee, arguments
  kKeyword,    ///< name; an argument's value
  kFilter,     ///< name; input, arguments
  kTest,       ///< name; operand, arguments
  // Statements.
  kBlock,        ///< statements
  kText,         ///< value
  kPrint,        ///< expression
  kIf,           ///< test, body, test, body, ..., body of else or nullptr
  kFor,          ///< target, iterable, test or nullptr, body, body of else or nullptr
  kSet,          ///< target, expression
  kMember,       ///< target ns.attribute; name: ns, value: attribute
  kSetBlock,     ///< target, filter or nullptr, body
  kMacro,        ///< name; parameters (kKeyword, default or no child), body
  kFilterBlock,  ///< filter, body
  kWith,         ///< targets and values in turn, body
  kGeneration,   ///< body
  kBreak,
  kContinue,
};

using NodePtr = std::unique_ptr<Node>;

struct Node {
  Kind kind = Kind::kBlock;
  std::int64_t line = 1;
  std::int64_t depth = 0;
  std::string name;
  Value value;
  std::vector<NodePtr> children;
  std::vector<std::string> hidden;  ///< block that is a frame: names undefined until it sets them
  bool uses_varargs = false;        ///< macro: its body reads `varargs`
  bool uses_kwargs = false;         ///< macro: its body reads `kwargs`

  const Node& child(std::size_t i) const { return *children[i]; }
  bool has(std::size_t i) const { return i < children.size() && children[i] != nullptr; }
};

/// Fills `hidden` of every block that is a frame.
void mark_hidden_names(Node& body);

struct Template {
  std::string origin;
  JinjaDialect dialect = JinjaDialect::kTransformers;
  NodePtr body;
};

/// Calls a function where the scope ends.
template <typename Function>
class AtEnd {
 public:
  explicit AtEnd(Function function) : function_(std::move(function)) {}
  ~AtEnd() { function_(); }
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;

 private:
  Function function_;
};

/// A place in the tokens, and what the parser must know of the surroundings.
class Cursor {
 public:
  Cursor(std::vector<Token> tokens, const std::string& origin) : tokens_(std::move(tokens)), origin_(origin) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool at_operator(std::string_view text) const { return is_operator(current(), text); }
  bool at_name(std::string_view text) const { return is_name(current(), text); }
  bool take_operator(std::string_view text);
  bool take_name(std::string_view text);
  void expect_operator(std::string_view text);
  std::string expect_name();
  void expect(TokenKind kind, std::string_view what);

  static bool is_operator(const Token& token, std::string_view text) { return token.kind == TokenKind::kOperator && token.text == text; }
  static bool is_name(const Token& token, std::string_view text) { return token.kind == TokenKind::kName && token.text == text; }

  /// A node of this line that takes `children`; refuses a tree that is too deep.
  template <typename... Children>
  NodePtr make(Kind kind, std::int64_t line, std::string name = {}, Children... children) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = line;
    node->name = std::move(name);
    (add(*node, std::move(children)), ...);
    return node;
  }
  void add(Node& parent, NodePtr child) const;
  Value constant(std::string text) const;

  const std::string& origin() const { return origin_; }
  [[noreturn]] void syntax_error(std::string_view what) const;
  [[noreturn]] void refuse(std::string_view what, std::int64_t line) const;

  /// Counts one level of nesting while what it returns lives.
  [[nodiscard]] auto nested() {
    if (nesting_ >= kMaxNesting) refuse(format("nesting of more than {} levels", kMaxNesting), current().line);
    ++nesting_;
    return AtEnd([this] { --nesting_; });
  }

  std::int64_t conditions = 0;  ///< `if`s around: jinja2 looks filters up late there
  std::int64_t loops = 0;       ///< loops around that `break` may leave
  bool saw_varargs = false;
  bool saw_kwargs = false;

 private:
  std::vector<Token> tokens_;
  std::size_t position_ = 0;
  std::int64_t nesting_ = 0;
  const std::string& origin_;
};

NodePtr parse_expression(Cursor& cursor, bool with_condition = true);
NodePtr parse_template(Cursor& cursor);
/// An expression, or a tuple without parentheses, up to `end` (a name) or the end of the tag.
NodePtr parse_tuple(Cursor& cursor, bool with_condition = true, std::string_view end = {});
/// A name or a tuple of names; with_member: ns.attribute too.
NodePtr parse_target(Cursor& cursor, bool with_member, std::string_view end = {});
/// Filters after `input`; starts at a name if `starts_inline`, else at '|'.
NodePtr parse_filters(Cursor& cursor, NodePtr input, bool starts_inline);

// Evaluation.

/// What evaluation needs everywhere: the place for messages, and the bounds.
class Context {
 public:
  Context(const std::string& origin, const JinjaOptions& options)
      : origin_(origin), options_(options), live_(std::make_shared<LiveBytes>()) {}

  /// Where jinja2 raises an error.
  template <typename... Args>
  [[noreturn]] void raise(std::string_view pattern, const Args&... args) const {
    fail_at(ErrorKind::kBadFormat, format(pattern, args...));
  }
  /// What this engine does not implement, or a bound.
  template <typename... Args>
  [[noreturn]] void refuse(std::string_view pattern, const Args&... args) const {
    fail_at(ErrorKind::kUnsupported, format(pattern, args...));
  }
  [[noreturn]] void fail_at(ErrorKind kind, const std::string& message) const;

  /// Counts `steps` of work; refuses beyond JinjaOptions::max_steps.
  void work(std::int64_t steps = 1);
  /// Counts the work of reading or writing `bytes` bytes.
  void work_bytes(std::size_t bytes) { work(1 + static_cast<std::int64_t>(bytes / 64)); }
  /// Refuses a string that has grown beyond kMaxOutputBytes.
  void check_size(const std::string& text) const {
    if (static_cast<std::int64_t>(text.size()) > kMaxOutputBytes) refuse("a string of more than {} bytes", kMaxOutputBytes);
  }
  /// Raises if `value` is undefined; `role` ends the message.
  void require_defined(const Value& value, std::string_view role = "") const {
    if (value.is(Type::kUndefined)) raise("'{}' is undefined{}", value.text(), role);
  }

  static Value none() { return Value(Type::kNone); }
  static Value boolean(bool b) { return Value(b); }
  static Value integer(std::int64_t i) { return Value(i); }
  static Value number(double d) { return Value(d); }
  Value string(std::string text, bool is_markup = false);
  /// A list, tuple, generator, range, view or dict of these items.
  Value sequence(Type type, std::vector<Value> items, std::string text = {});
  Value undefined(std::string_view name = {}) { return named(Type::kUndefined, std::string(name)); }
  Value method(const Value& receiver, std::string_view name) { return sequence(Type::kMethod, {receiver}, std::string(name)); }
  Value function(std::string_view name) { return named(Type::kFunction, std::string(name)); }
  Value make_namespace(std::vector<std::pair<std::string, Value>> members);
  Value from_json(const nlohmann::ordered_json& json);

  const JinjaOptions& options() const { return options_; }
  const std::string& origin() const { return origin_; }
  std::int64_t line = 1;

 private:
  Value allocated(Type type, std::size_t bytes);
  Value named(Type type, std::string text);

  const std::string& origin_;
  const JinjaOptions& options_;
  std::int64_t steps_ = 0;
  std::shared_ptr<LiveBytes> live_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// The arguments of `callee` in the order of `names`, nullopt where none is given. Raises on one too many and on an unknown name.
using Given = std::vector<std::optional<Value>>;
Given bind_arguments(Context& context, std::string_view callee, const Arguments& arguments, std::span<const std::string_view> names,
                     std::size_t num_required = 0);
inline Given bind_arguments(Context& context, std::string_view callee, const Arguments& arguments,
                            std::initializer_list<std::string_view> names, std::size_t num_required = 0) {
  return bind_arguments(context, callee, arguments, std::span(names.begin(), names.size()), num_required);
}

/// The row of that `name` in a table, nullptr if there is none.
template <typename Row, std::size_t size>
const Row* find_row(const Row (&table)[size], std::string_view name) {
  const Row* row = std::ranges::find(table, name, &Row::name);
  return row == std::end(table) ? nullptr : row;
}

// jinja_value
std::string_view type_name(const Value& value);
bool truth(const Value& value);
bool equal(Context& context, const Value& a, const Value& b);
/// Python's `a < b`; raises where Python does.
bool less(Context& context, const Value& a, const Value& b);
/// What a loop over `value` sees; reads a generator to its end. Raises if it cannot be iterated.
std::vector<Value> iterate(Context& context, const Value& value);
bool is_iterable(const Value& value);
/// len(value), or nullopt where Python raises TypeError.
std::optional<std::int64_t> length(const Value& value);
/// True for list, tuple, dict and namespace-free containers of those; what Python cannot hash.
bool is_hashable(const Value& value);
/// The place of `key` in a dict's items, or nullopt. Raises if the key cannot be hashed.
std::optional<std::size_t> find_key(Context& context, const std::vector<Value>& items, const Value& key);
/// The (key, value) tuples of a dict.
std::vector<Value> pairs(Context& context, const Value& dict);
const Value* find_member(Context& context, const Value& dict, std::string_view key);
/// Adds or replaces, as d[key] = value does.
void put(Context& context, std::vector<Value>& items, const Value& key, const Value& value);
/// The integer, or raises "<what> must be an integer".
std::int64_t require_integer(Context& context, const Value& value, std::string_view what);
const std::string& require_text(Context& context, const Value& value, std::string_view what);

// jinja_text
std::string str(Context& context, const Value& value);
std::string repr(Context& context, const Value& value);
struct JsonStyle {
  std::optional<std::string> indent;
  std::string item_separator;
  std::string key_separator;
  bool ensure_ascii = false;
  bool sort_keys = false;
};
std::string to_json(Context& context, const Value& value, const JsonStyle& style);
std::string float_repr(double value);
std::string_view strip(std::string_view text, std::string_view characters, bool has_characters, bool left, bool right);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);
std::string upper(Context& context, std::string_view text);
std::string capitalize(Context& context, std::string_view text);
std::string replace(Context& context, std::string_view text, std::string_view from, std::string_view to, std::int64_t count);
/// text.find(part, from) in linear time, whatever the two hold.
std::size_t find_text(std::string_view text, std::string_view part, std::size_t from = 0);
/// The characters as strings of their own.
std::vector<std::string_view> characters(std::string_view text);
std::string escape_html(std::string_view text);

// jinja_operators
Value binary(Context& context, std::string_view op, const Value& a, const Value& b);
Value negate(Context& context, const Value& value, bool is_plus);
bool contains(Context& context, const Value& container, const Value& item);
bool compare(Context& context, std::string_view op, const Value& a, const Value& b);
Value get_item(Context& context, const Value& object, const Value& index);
Value get_slice(Context& context, const Value& object, const Value& start, const Value& stop, const Value& step);

// jinja_methods
/// jinja2's environment.getattr: an attribute first, then an item.
Value get_attribute(Context& context, const Value& object, std::string_view name);
/// Only Python's attributes, for objects whose item of that name is missing; nullopt if there is none.
std::optional<Value> python_attribute(Context& context, const Value& object, std::string_view name);
Value call_method(Context& context, const Value& method, const Arguments& arguments);
std::string format_string(Context& context, std::string_view pattern, const Arguments& arguments);
std::string percent_format(Context& context, std::string_view pattern, const Value& operand);

// jinja_filters, jinja_numbers, jinja_tests, jinja_functions
enum class Known { kNo, kInJinja, kYes };  ///< kInJinja: in jinja2, but not here
Known knows_filter(std::string_view name);
Known knows_test(std::string_view name);
Value apply_filter(Context& context, std::string_view name, const Value& input, const Arguments& arguments);
bool apply_test(Context& context, std::string_view name, const Value& input, const Arguments& arguments);
Value filter_int(Context& context, const Value& input, const Given& given);
Value filter_float(Context& context, const Value& input, const Given& given);
Value filter_round(Context& context, const Value& input, const Given& given);
std::optional<Value> global_function(Context& context, std::string_view name);
Value call_function(Context& context, std::string_view name, const Arguments& arguments);

// jinja_render
std::string render(const Template& parsed, const nlohmann::ordered_json& variables, const JinjaOptions& options);

/// A loop's state, which `loop` shows to the template.
struct Loop {
  std::vector<Value> source;
  std::size_t next_source = 0;
  std::function<bool(const Value&)> accepts;  ///< the loop's own `if`
  std::optional<Value> peeked;
  std::optional<Value> previous;
  Value current;
  std::int64_t index0 = -1;

  /// The item after the current one, without a step to it.
  const std::optional<Value>& peek();
  bool advance();
  std::int64_t num_items();
};
Value loop_attribute(Context& context, const Value& loop, std::string_view name);

}  // namespace quiver::text::jinja
