// The contexts that a server has in memory.
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quiver/engine/context.h"

namespace quiver::engine {

/// Contexts by key, of which those used last stay. It also knows which adapters a context holds, as long as any request uses the context.
/// Adapters are told by their folders. Not thread-safe.
class ContextStore {
 public:
  explicit ContextStore(std::size_t max_contexts) : max_contexts_(max_contexts) {}

  /// The context of a key, which counts as used; null: none is kept.
  ContextPtr find(const std::string& key);
  bool contains(const std::string& key) const { return kept_.contains(key); }

  /// Remembers which adapters a context holds; does not keep it.
  void note(const ContextPtr& context, std::vector<std::string> adapters);
  /// Keeps a context by a key, and drops the one used longest ago where there are more than max_contexts.
  void keep(const std::string& key, ContextPtr context);

  /// Keeps no context that holds `adapter` any more. Returns those that requests still use: each pointer expires with its last request.
  std::vector<std::weak_ptr<const schedule::Assignment>> forget(const std::string& adapter);
  /// Keeps none any more.
  void clear();

 private:
  struct Kept {
    ContextPtr context;
    std::list<std::string>::iterator use;
  };
  struct Noted {
    std::weak_ptr<const Context> context;
    std::vector<std::string> adapters;
  };
  std::size_t max_contexts_;
  std::map<std::string, Kept> kept_;
  std::list<std::string> by_use_;  // keys of kept_, what was used last at the end
  std::vector<Noted> noted_;       // all that was noted and that somebody holds
};

}  // namespace quiver::engine
