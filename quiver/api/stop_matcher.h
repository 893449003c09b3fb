// Stop strings in a text that comes in pieces.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::api {

/// Cuts a text before the first place where a stop string starts. Pieces of the text go in; text that no later piece can cut off comes out.
///
///   push(a) + push(b) + ... + finish() == (a + b + ...) up to the earliest start of a stop string
///
/// however the text is cut into pieces. Holds back the longest end of the text that may be the start of a stop string. Text that has come
/// out is never looked at again. Where a stop string is found inside the possible start of another, the matcher waits for the decision.
/// Not thread-safe.
class StopMatcher {
 public:
  /// Empty stop strings are left out.
  explicit StopMatcher(std::vector<std::string> stops = {});

  /// Appends to `out` the text that is certain. After a match, does nothing.
  void push(std::string_view text, std::string& out);
  /// Appends to `out` the rest of the text, which ends here. A stop string in it counts.
  void finish(std::string& out);
  /// True once a stop string has been found. What was pushed after its start is dropped.
  bool is_stopped() const { return is_stopped_; }

 private:
  enum class Match { kNone, kPartial, kWhole };
  Match match_at(std::size_t offset) const;
  void scan(bool is_end, std::string& out);

  std::vector<std::string> stops_;
  std::array<bool, 256> starts_{};  ///< first bytes of stop strings
  std::string held_;                ///< text that is not out yet
  bool is_stopped_ = false;
};

}  // namespace quiver::api
