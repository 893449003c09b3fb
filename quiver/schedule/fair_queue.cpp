#include "quiver/schedule/fair_queue.h"

#include <algorithm>

namespace quiver::schedule {

std::deque<FairQueue::Id>& FairQueue::waiting(const std::string& client) {
  ++size_;
  const auto [found, is_new] = clients_.try_emplace(client);
  if (is_new && clients_.size() > 1) {
    std::optional<std::int64_t> least;
    for (const auto& [name, other] : clients_) {
      if (name != client) least = least ? std::min(*least, other.served) : other.served;
    }
    found->second.served = *least;
  }
  return found->second.waiting;
}

std::optional<FairQueue::Id> FairQueue::next(const std::set<Id>& passed) const {
  std::optional<Id> best;
  std::int64_t least = 0;
  for (const auto& [name, client] : clients_) {
    const auto first = std::ranges::find_if(client.waiting, [&](Id id) { return !passed.contains(id); });
    if (first == client.waiting.end() || (best && client.served >= least)) continue;
    best = *first;
    least = client.served;
  }
  return best;
}

void FairQueue::erase(const std::string& client, Id id) {
  const auto found = clients_.find(client);
  if (found != clients_.end()) size_ -= static_cast<std::int64_t>(std::erase(found->second.waiting, id));
}

void FairQueue::charge(const std::string& client, std::int64_t tokens) {
  const auto found = clients_.find(client);
  if (found != clients_.end()) found->second.served += tokens;
}

void FairQueue::forget(const std::string& client) {
  const auto found = clients_.find(client);
  if (found != clients_.end() && found->second.waiting.empty()) clients_.erase(found);
}

}  // namespace quiver::schedule
