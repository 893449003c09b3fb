// Names that jinja2's compiler hides from inner frames.
//
// jinja2 resolves a name once per frame, when the frame starts. A frame hides a name that its own statements set before they read it, if no
// outer frame knows the name. The name is undefined until it is set, whatever the caller passed. Loops and macros that run earlier see
// that.
#include <algorithm>
#include <set>
#include <string>

#include "quiver/text/jinja_parts.h"

namespace quiver::text::jinja {
namespace {

using NameSet = std::set<std::string, std::less<>>;

/// What one frame knows of names.
struct Frame {
  const Frame* parent = nullptr;
  NameSet known;   ///< read or set so far
  NameSet stored;  ///< set so far
  NameSet hidden;  ///< undefined until the frame sets them

  bool outer_knows(const std::string& name) const {
    for (const Frame* frame = parent; frame != nullptr; frame = frame->parent) {
      if (frame->known.contains(name)) return true;
    }
    return false;
  }
  void load(const std::string& name) {
    if (!known.contains(name) && !outer_knows(name)) known.insert(name);
  }
  void store(const std::string& name) {
    stored.insert(name);
    if (!known.insert(name).second) return;
    if (!outer_knows(name)) hidden.insert(name);
  }
};

void visit_expression(Frame& frame, const Node& node) {
  if (node.kind == Kind::kName) frame.load(node.name);
  for (const NodePtr& child : node.children) {
    if (child) visit_expression(frame, *child);
  }
}

void visit_target(Frame& frame, const Node& target) {
  if (target.kind == Kind::kName) return frame.store(target.name);
  if (target.kind == Kind::kMember) return frame.load(target.name);
  for (const NodePtr& child : target.children) visit_target(frame, *child);
}

void visit_statement(Frame& frame, const Node& node);

void visit_body(Frame& frame, const Node& block) {
  for (const NodePtr& child : block.children) visit_statement(frame, *child);
}

/// The branches see the names before them only; what some of them set is looked up, not hidden.
void visit_if(Frame& frame, const Node& node) {
  visit_expression(frame, node.child(0));
  const Frame before = frame;
  for (std::size_t i = 1; i < node.children.size(); ++i) {
    if (!node.has(i)) continue;
    Frame branch = before;
    const bool is_body = i % 2 == 1 || i + 1 == node.children.size();
    is_body ? visit_body(branch, node.child(i)) : visit_expression(branch, node.child(i));
    frame.known.insert(branch.known.begin(), branch.known.end());
    frame.stored.insert(branch.stored.begin(), branch.stored.end());
  }
}

/// The statements of a frame itself, without the bodies of those that have a frame of their own.
void visit_statement(Frame& frame, const Node& node) {
  switch (node.kind) {
    case Kind::kPrint: return visit_expression(frame, node.child(0));
    case Kind::kIf: return visit_if(frame, node);
    case Kind::kFor: return visit_expression(frame, node.child(1));
    case Kind::kSet: visit_expression(frame, node.child(1)); return visit_target(frame, node.child(0));
    case Kind::kSetBlock: return visit_target(frame, node.child(0));
    case Kind::kMacro: return frame.store(node.name);
    case Kind::kFilterBlock: return visit_expression(frame, node.child(0));
    case Kind::kWith:
      for (std::size_t i = 1; i + 1 < node.children.size(); i += 2) visit_expression(frame, node.child(i));
      return;
    default: return;
  }
}

void mark_frame(Node& body, Frame& frame);

/// Marks the frames inside a statement; `frame` is the one around it.
void mark_inside(Node& node, const Frame& frame) {
  switch (node.kind) {
    case Kind::kBlock:
      for (const NodePtr& child : node.children) mark_inside(*child, frame);
      return;
    case Kind::kIf:
      for (const NodePtr& child : node.children) {
        if (child) mark_inside(*child, frame);
      }
      return;
    case Kind::kFor:
    case Kind::kSetBlock:
    case Kind::kMacro:
    case Kind::kFilterBlock:
    case Kind::kWith:
    case Kind::kGeneration: break;
    default: return;
  }
  for (const NodePtr& child : node.children) {
    if (!child || child->kind != Kind::kBlock) continue;
    Frame inner;
    inner.parent = &frame;
    if (node.kind == Kind::kFor) inner.known.insert("loop");
    for (const NodePtr& other : node.children) {
      if (node.kind == Kind::kMacro && other->kind == Kind::kKeyword) inner.known.insert(other->name);
    }
    if (node.kind == Kind::kFor) visit_target(inner, node.child(0));
    if (node.kind == Kind::kWith) {
      for (std::size_t i = 0; i + 1 < node.children.size(); i += 2) visit_target(inner, node.child(i));
    }
    inner.hidden.clear();
    mark_frame(*child, inner);
  }
}

void mark_frame(Node& body, Frame& frame) {
  visit_body(frame, body);
  body.hidden.assign(frame.hidden.begin(), frame.hidden.end());
  mark_inside(body, frame);
}

}  // namespace

void mark_hidden_names(Node& body) {
  Frame root;
  mark_frame(body, root);
}

}  // namespace quiver::text::jinja
