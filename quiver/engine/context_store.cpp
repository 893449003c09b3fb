#include "quiver/engine/context_store.h"

#include <algorithm>
#include <utility>

namespace quiver::engine {

ContextPtr ContextStore::find(const std::string& key) {
  const auto found = kept_.find(key);
  if (found == kept_.end()) return nullptr;
  by_use_.splice(by_use_.end(), by_use_, found->second.use);
  return found->second.context;
}

void ContextStore::note(const ContextPtr& context, std::vector<std::string> adapters) {
  std::erase_if(noted_, [](const Noted& one) { return one.context.expired(); });
  noted_.push_back({context, std::move(adapters)});
}

void ContextStore::keep(const std::string& key, ContextPtr context) {
  const auto [kept, is_new] = kept_.try_emplace(key);
  if (is_new) kept->second.use = by_use_.insert(by_use_.end(), key);
  kept->second.context = std::move(context);
  while (kept_.size() > max_contexts_) {
    kept_.erase(by_use_.front());
    by_use_.pop_front();
  }
}

std::vector<std::weak_ptr<const schedule::Assignment>> ContextStore::forget(const std::string& adapter) {
  std::vector<std::weak_ptr<const schedule::Assignment>> in_use;
  for (const auto& one : noted_) {
    if (std::ranges::find(one.adapters, adapter) == one.adapters.end()) continue;
    std::erase_if(kept_, [&, context = one.context.lock()](const auto& entry) {
      if (entry.second.context != context) return false;
      by_use_.erase(entry.second.use);
      return true;
    });
    if (!one.context.expired()) in_use.emplace_back(one.context);
  }
  return in_use;
}

void ContextStore::clear() {
  kept_.clear();
  by_use_.clear();
}

}  // namespace quiver::engine
