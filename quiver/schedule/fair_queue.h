// Who is next among clients that wait.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

namespace quiver::schedule {

/// Requests that wait, by client. Next is the client that was served least, counted in tokens since it came; a client that comes is counted
/// as served like the one that was served least among those that are there (virtual token counters, Sheng et al. 2024, arXiv 2401.00588).
/// Within a client requests keep their order. Not thread-safe.
class FairQueue {
 public:
  using Id = std::uint64_t;

  void push_back(const std::string& client, Id id) { waiting(client).push_back(id); }
  /// Before all others of the client: it had its turn before.
  void push_front(const std::string& client, Id id) { waiting(client).push_front(id); }
  /// The next of those that are not in `passed`.
  std::optional<Id> next(const std::set<Id>& passed) const;
  /// The request no longer waits.
  void erase(const std::string& client, Id id);
  /// The client was served so many tokens.
  void charge(const std::string& client, std::int64_t tokens);
  /// The client has nothing that is computed. Without anything that waits, it is gone.
  void forget(const std::string& client);

  std::int64_t size() const { return size_; }
  bool is_empty() const { return size_ == 0; }

 private:
  struct Client {
    std::deque<Id> waiting;
    std::int64_t served = 0;
  };
  std::deque<Id>& waiting(const std::string& client);

  std::map<std::string, Client> clients_;
  std::int64_t size_ = 0;
};

}  // namespace quiver::schedule
