// The tokens that are recognised in a text as a whole, before anything else.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quiver/text/normalizer.h"

namespace quiver::text {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false;  ///< only where no letter or digit touches it
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< takes the white space after it along
  bool normalized = false;   ///< looked for in the normalised text
  bool special = false;      ///< decode may leave it out
};

/// A stretch of text: an added token, or text between them.
struct Segment {
  std::string_view text;
  std::optional<std::int32_t> id;
};

/// Finds tokens in texts. Immutable, thread-safe.
class TokenFinder {
 public:
  TokenFinder() : TokenFinder({}, {}) {}
  /// `normalizer` is applied to the contents to look for.
  TokenFinder(const std::vector<AddedToken>& tokens, const Normalizer& normalizer);

  /// Cuts `text` (valid UTF-8) at its tokens, from left to right, the longest where several start.
  void split(std::string_view text, std::vector<Segment>& out) const;

 private:
  struct Entry {
    std::string content;
    AddedToken token;
  };
  const Entry* longest_at(std::string_view text, std::size_t offset) const;

  std::vector<Entry> entries_;                                      ///< in the order of their bytes, of equals the first alone
  std::vector<std::pair<std::size_t, std::size_t>> by_first_byte_;  ///< 256 ranges of entries_
};

}  // namespace quiver::text
