// The tree walk: scopes, loops, macros and expressions.
#include <algorithm>

#include "quiver/text/jinja_parts.h"

namespace quiver::text::jinja {

/// Names that statements set. jinja2's frames: `if` has none of its own; loops, macros and blocks with an end tag do.
struct Scope : Namespace {
  std::shared_ptr<Scope> parent;
};

const std::optional<Value>& Loop::peek() {
  while (!peeked && next_source < source.size()) {
    Value item = source[next_source++];
    if (!accepts || accepts(item)) peeked = std::move(item);
  }
  return peeked;
}

bool Loop::advance() {
  if (!peek()) return false;
  if (index0 >= 0) previous = current;
  current = *std::exchange(peeked, std::nullopt);
  ++index0;
  return true;
}

std::int64_t Loop::num_items() {
  if (accepts) {
    std::vector<Value> rest;
    while (peek()) rest.push_back(*std::exchange(peeked, std::nullopt));
    source = std::move(rest);
    next_source = 0;
    accepts = nullptr;
  }
  return index0 + 1 + (peeked ? 1 : 0) + static_cast<std::int64_t>(source.size() - next_source);
}

Value loop_attribute(Context& context, const Value& value, std::string_view name) {
  Loop& loop = *value.heap->loop;
  if (name == "index0") return context.integer(loop.index0);
  if (name == "index") return context.integer(loop.index0 + 1);
  if (name == "first") return context.boolean(loop.index0 == 0);
  if (name == "last") return context.boolean(!loop.peek());
  if (name == "length") return context.integer(loop.num_items());
  if (name == "revindex") return context.integer(loop.num_items() - loop.index0);
  if (name == "revindex0") return context.integer(loop.num_items() - loop.index0 - 1);
  if (name == "previtem") return loop.previous ? *loop.previous : context.undefined(name);
  if (name == "nextitem") return loop.peek() ? *loop.peek() : context.undefined(name);
  if (name == "depth") return context.integer(1);
  if (name == "depth0") return context.integer(0);
  if (name == "cycle") return context.method(value, name);
  if (name == "changed") context.refuse("loop.changed()");
  return context.undefined(name);
}

namespace {

enum class Flow { kNext, kBreak, kContinue };

class Renderer {
 public:
  Renderer(const Template& parsed, const nlohmann::ordered_json& variables, const JinjaOptions& options)
      : context_(parsed.origin, options), variables_(variables), is_strict_(parsed.dialect == JinjaDialect::kLmEval) {}

  std::string run(const Node& body) {
    if (!variables_.is_object()) fail(ErrorKind::kUsage, "{}: the variables of a template must be an object", context_.origin());
    execute(body);
    return std::move(out_);
  }

 private:
  /// Counts one level of recursion while what it returns lives, and makes `node` the place of messages.
  [[nodiscard]] auto level(const Node& node) {
    context_.line = node.line;
    if (depth_ >= kMaxEvaluationDepth) context_.refuse("recursion of more than {} levels", kMaxEvaluationDepth);
    ++depth_;
    context_.work();
    return AtEnd([this] { --depth_; });
  }

  /// A scope inside `parent` while what it returns lives; the scope before comes back after.
  [[nodiscard]] auto inside(std::shared_ptr<Scope> parent) {
    auto before = std::exchange(scope_, std::make_shared<Scope>());
    scope_->parent = std::move(parent);
    return AtEnd([this, before = std::move(before)] { scope_ = before; });
  }

  // Statements.

  void write(std::string_view text) {
    if (static_cast<std::int64_t>(out_.size() + text.size()) > kMaxOutputBytes) {
      context_.refuse("an output of more than {} bytes", kMaxOutputBytes);
    }
    context_.work_bytes(text.size());
    out_ += text;
  }

  Flow execute(const Node& node) {
    const auto counted = level(node);
    switch (node.kind) {
      case Kind::kBlock:
        for (const std::string& name : node.hidden) scope_->set(name, context_.undefined(name));
        for (const NodePtr& child : node.children) {
          if (const Flow flow = execute(*child); flow != Flow::kNext) return flow;
        }
        return Flow::kNext;
      case Kind::kText: write(node.value.text()); return Flow::kNext;
      case Kind::kPrint: print(node); return Flow::kNext;
      case Kind::kIf: return execute_if(node);
      case Kind::kFor: return execute_for(node);
      case Kind::kSet: assign(node.child(0), evaluate(node.child(1))); return Flow::kNext;
      case Kind::kSetBlock: return execute_set_block(node);
      case Kind::kFilterBlock: return execute_filter_block(node);
      case Kind::kMacro: define_macro(node); return Flow::kNext;
      case Kind::kWith: return execute_with(node);
      case Kind::kGeneration: {
        const auto inner = inside(scope_);
        return execute(node.child(0));
      }
      case Kind::kBreak: return Flow::kBreak;
      case Kind::kContinue: return Flow::kContinue;
      default: fail(ErrorKind::kInternal, "a statement of an unknown kind in a template");
    }
  }

  void print(const Node& node) {
    const Value value = evaluate(node.child(0));
    if (value.is_string()) return write(value.text());
    write(str(context_, value));
  }

  Flow execute_if(const Node& node) {
    const std::size_t size = node.children.size();
    for (std::size_t i = 0; i + 1 < size; i += 2) {
      if (truth(evaluate(node.child(i)))) return execute(node.child(i + 1));
    }
    return node.has(size - 1) ? execute(node.child(size - 1)) : Flow::kNext;
  }

  Flow execute_for(const Node& node) {
    const auto loop = std::make_shared<Loop>();
    loop->source = iterate(context_, evaluate(node.child(1)));
    const std::shared_ptr<Scope> outer = scope_;
    if (node.has(2)) {
      loop->accepts = [this, &node, outer](const Value& item) {
        const auto inner = inside(outer);
        assign(node.child(0), item);
        return truth(evaluate(node.child(2)));
      };
    }
    Value shown = context_.sequence(Type::kLoop, {});
    shown.heap->loop = loop;
    bool is_empty = true;
    while (loop->advance()) {
      is_empty = false;
      context_.work();
      const auto inner = inside(outer);
      assign(node.child(0), loop->current);
      scope_->set("loop", shown);
      if (execute(node.child(3)) == Flow::kBreak) break;
    }
    // The loop's own `if` refers to this frame, which a copy of `loop` may outlive.
    loop->accepts = nullptr;
    if (!is_empty || !node.has(4)) return Flow::kNext;
    const auto inner = inside(outer);
    return execute(node.child(4));
  }

  /// Renders `body` in a scope of its own, apart from the output. `flow`: how it ended.
  std::string captured(const Node& body, Flow& flow) {
    std::string before = std::exchange(out_, {});
    const auto inner = inside(scope_);
    flow = execute(body);
    return std::exchange(out_, std::move(before));
  }

  Value filtered(const Node& filter, Value text) {
    inputs_.push_back(std::move(text));
    Value out = evaluate(filter);
    inputs_.pop_back();
    return out;
  }

  Flow execute_set_block(const Node& node) {
    Flow flow = Flow::kNext;
    std::string text = captured(node.child(2), flow);
    if (flow != Flow::kNext) return flow;
    auto value = context_.string(std::move(text));
    if (node.has(1)) value = filtered(node.child(1), std::move(value));
    assign(node.child(0), value);
    return flow;
  }

  Flow execute_filter_block(const Node& node) {
    Flow flow = Flow::kNext;
    std::string text = captured(node.child(1), flow);
    if (flow == Flow::kNext) write(str(context_, filtered(node.child(0), context_.string(std::move(text)))));
    return flow;
  }

  Flow execute_with(const Node& node) {
    const std::shared_ptr<Scope> outer = scope_;
    std::vector<Value> values;
    for (std::size_t i = 1; i + 1 < node.children.size(); i += 2) values.push_back(evaluate(node.child(i)));
    const auto inner = inside(outer);
    for (std::size_t i = 0; i < values.size(); ++i) assign(node.child(2 * i), values[i]);
    return execute(*node.children.back());
  }

  void define_macro(const Node& node) {
    Value macro = context_.sequence(Type::kMacro, {}, node.name);
    macro.heap->macro = &node;
    macro.heap->scope = scope_;
    scope_->set(node.name, macro);
  }

  void assign(const Node& target, const Value& value) {
    if (target.kind == Kind::kName) return scope_->set(target.name, value);
    if (target.kind == Kind::kMember) return assign_member(target, value);
    const auto parts = iterate(context_, value);
    if (parts.size() != target.children.size()) {
      context_.raise("{} values cannot be set to {} names", parts.size(), target.children.size());
    }
    for (std::size_t i = 0; i < parts.size(); ++i) assign(target.child(i), parts[i]);
  }

  void assign_member(const Node& target, const Value& value) {
    const Value space = lookup(target.name);
    const std::string& name = target.value.text();
    if (!space.is(Type::kNamespace)) context_.raise("'{}' is no namespace; only members of one can be set", target.name);
    if (name.starts_with('_')) context_.raise("a namespace cannot have a member '{}'", name);
    if (space.space->find(name) == nullptr) context_.work(4);
    space.space->set(name, value);
  }

  // Names.

  Value lookup(const std::string& name) {
    for (Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
      context_.work(1 + static_cast<std::int64_t>(scope->members.size() / 16));
      if (const Value* value = scope->find(name)) return *value;
    }
    if (const Value* known = globals_.find(name)) return *known;
    if (const auto variable = variables_.find(name); variable != variables_.end()) {
      globals_.set(name, context_.from_json(*variable));
      return *globals_.find(name);
    }
    if (const auto function = global_function(context_, name)) return *function;
    return context_.undefined(name);
  }

  // Expressions.

  Value evaluate(const Node& node) {
    Value value = evaluate_loosely(node);
    if (is_strict_) context_.require_defined(value);
    return value;
  }

  /// The value, which may be undefined in every dialect.
  Value evaluate_loosely(const Node& node) {
    const auto counted = level(node);
    switch (node.kind) {
      case Kind::kConstant: return node.value;
      case Kind::kName: return lookup(node.name);
      case Kind::kInput: return inputs_.back();
      case Kind::kTuple:
      case Kind::kList: return evaluate_items(node);
      case Kind::kDict: return evaluate_dict(node);
      case Kind::kNegate:
      case Kind::kPlus: return negate(context_, evaluate(node.child(0)), node.kind == Kind::kPlus);
      case Kind::kNot: return context_.boolean(!truth(evaluate(node.child(0))));
      case Kind::kAnd:
      case Kind::kOr: return evaluate_logical(node);
      case Kind::kBinary: return evaluate_binary(node);
      case Kind::kConcat: return evaluate_concat(node);
      case Kind::kCompare: return evaluate_compare(node);
      case Kind::kCondition: return evaluate_condition(node);
      case Kind::kAttribute: return get_attribute(context_, evaluate(node.child(0)), node.name);
      case Kind::kItem: return evaluate_item(node);
      case Kind::kSlice: return evaluate_slice(node);
      case Kind::kCall: return call(node);
      case Kind::kFilter: return evaluate_filter(node);
      case Kind::kTest: return evaluate_test(node);
      default: fail(ErrorKind::kInternal, "an expression of an unknown kind in a template");
    }
  }

  Value evaluate_items(const Node& node) {
    std::vector<Value> items;
    for (const NodePtr& child : node.children) items.push_back(evaluate(*child));
    return context_.sequence(node.kind == Kind::kTuple ? Type::kTuple : Type::kList, std::move(items));
  }

  Value evaluate_dict(const Node& node) {
    std::vector<Value> items;
    for (std::size_t i = 0; i < node.children.size(); i += 2) {
      const Value key = evaluate(node.child(i));
      put(context_, items, key, evaluate(node.child(i + 1)));
    }
    return context_.sequence(Type::kDict, std::move(items));
  }

  Value evaluate_logical(const Node& node) {
    Value left = evaluate(node.child(0));
    return truth(left) == (node.kind == Kind::kOr) ? left : evaluate(node.child(1));
  }

  Value evaluate_binary(const Node& node) {
    const Value left = evaluate(node.child(0));
    const Value right = evaluate(node.child(1));
    context_.line = node.line;
    return binary(context_, node.name, left, right);
  }

  Value evaluate_concat(const Node& node) {
    std::string out;
    for (const NodePtr& child : node.children) {
      out += str(context_, evaluate(*child));
      context_.check_size(out);
    }
    return context_.string(std::move(out));
  }

  Value evaluate_compare(const Node& node) {
    Value left = evaluate(node.child(0));
    for (std::size_t i = 1; i < node.children.size(); ++i) {
      const Node& operand = node.child(i);
      const Value right = evaluate(operand.child(0));
      context_.line = operand.line;
      if (!compare(context_, operand.name, left, right)) return context_.boolean(false);
      left = right;
    }
    return context_.boolean(true);
  }

  Value evaluate_condition(const Node& node) {
    if (truth(evaluate(node.child(0)))) return evaluate(node.child(1));
    return node.has(2) ? evaluate(node.child(2)) : context_.undefined();
  }

  Value evaluate_item(const Node& node) {
    const Value object = evaluate(node.child(0));
    const Value index = evaluate(node.child(1));
    context_.line = node.line;
    return get_item(context_, object, index);
  }

  Value evaluate_slice(const Node& node) {
    const Value object = evaluate(node.child(0));
    const auto part = [&](std::size_t i) { return node.has(i) ? evaluate(node.child(i)) : context_.none(); };
    const Value start = part(1);
    const Value stop = part(2);
    const Value step = part(3);
    context_.line = node.line;
    return get_slice(context_, object, start, stop, step);
  }

  Arguments evaluate_arguments(const Node& node) {
    Arguments out;
    for (std::size_t i = 1; i < node.children.size(); ++i) {
      const Node& child = node.child(i);
      if (child.kind != Kind::kKeyword) {
        out.positional.push_back(evaluate(child));
        continue;
      }
      for (const auto& [name, value] : out.named) {
        if (name == child.name) context_.raise("two values for the argument '{}'", name);
      }
      out.named.emplace_back(child.name, evaluate(child.child(0)));
    }
    context_.line = node.line;
    return out;
  }

  Value evaluate_filter(const Node& node) {
    const bool mends = node.name == "default" || node.name == "d";
    if (is_strict_ && node.name == "tojson") context_.refuse("the filter 'tojson', which Quiver does not implement for tasks");
    const Value input = mends ? evaluate_loosely(node.child(0)) : evaluate(node.child(0));
    const Arguments arguments = evaluate_arguments(node);
    return apply_filter(context_, node.name, input, arguments);
  }

  Value evaluate_test(const Node& node) {
    const bool asks = node.name == "defined" || node.name == "undefined";
    const Value input = asks ? evaluate_loosely(node.child(0)) : evaluate(node.child(0));
    const Arguments arguments = evaluate_arguments(node);
    return context_.boolean(apply_test(context_, node.name, input, arguments));
  }

  Value call(const Node& node) {
    const Value callee = evaluate(node.child(0));
    const Arguments arguments = evaluate_arguments(node);
    switch (callee.type) {
      case Type::kMethod: return call_method(context_, callee, arguments);
      case Type::kFunction: return call_function(context_, callee.text(), arguments);
      case Type::kMacro: return call_macro(callee, arguments);
      default: context_.require_defined(callee, ", and cannot be called"); context_.raise("{} cannot be called", type_name(callee));
    }
  }

  Value call_macro(const Value& macro, const Arguments& arguments) {
    const std::shared_ptr<Scope> defined = macro.heap->scope.lock();
    if (!defined) context_.refuse("a call of the macro '{}' outside the block that defines it", macro.text());
    const Node& node = *macro.heap->macro;
    const auto counted = level(node);
    const std::size_t num_parameters = node.children.size() - 1;
    std::string before = std::exchange(out_, {});
    const auto inner = inside(defined);
    bind_parameters(node, num_parameters, arguments);
    execute(node.child(num_parameters));
    return context_.string(std::exchange(out_, std::move(before)));
  }

  void bind_parameters(const Node& node, std::size_t num_parameters, const Arguments& arguments) {
    std::vector<Value> more_named;
    std::vector<std::optional<Value>> given(num_parameters);
    for (std::size_t i = 0; i < std::min(num_parameters, arguments.positional.size()); ++i) given[i] = arguments.positional[i];
    for (const auto& [name, value] : arguments.named) {
      std::size_t i = 0;
      while (i < num_parameters && node.child(i).name != name) ++i;
      if (i == num_parameters) {
        if (!node.uses_kwargs) context_.raise("the macro '{}' has no parameter '{}'", node.name, name);
        more_named.push_back(context_.string(name));
        more_named.push_back(value);
      } else {
        if (given[i]) context_.raise("the macro '{}' has two values for its parameter '{}'", node.name, name);
        given[i] = value;
      }
    }
    for (std::size_t i = 0; i < num_parameters; ++i) {
      const Node& parameter = node.child(i);
      if (!given[i]) given[i] = parameter.has(0) ? evaluate(parameter.child(0)) : context_.undefined(parameter.name);
      scope_->set(parameter.name, *given[i]);
    }
    const std::size_t num_positional = std::min(num_parameters, arguments.positional.size());
    std::vector<Value> more(arguments.positional.begin() + static_cast<std::ptrdiff_t>(num_positional), arguments.positional.end());
    if (!more.empty() && !node.uses_varargs) {
      context_.raise("the macro '{}' takes at most {} arguments, {} given", node.name, num_parameters, arguments.positional.size());
    }
    if (node.uses_varargs) scope_->set("varargs", context_.sequence(Type::kTuple, std::move(more)));
    if (node.uses_kwargs) scope_->set("kwargs", context_.sequence(Type::kDict, std::move(more_named)));
  }

  Context context_;
  const nlohmann::ordered_json& variables_;
  bool is_strict_;  ///< jinja2's StrictUndefined
  Scope globals_;
  std::shared_ptr<Scope> scope_ = std::make_shared<Scope>();
  std::vector<Value> inputs_;
  std::string out_;
  std::int64_t depth_ = 0;
};

}  // namespace

std::string render(const Template& parsed, const nlohmann::ordered_json& variables, const JinjaOptions& options) {
  return Renderer(parsed, variables, options).run(*parsed.body);
}

}  // namespace quiver::text::jinja
