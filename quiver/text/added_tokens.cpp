#include "quiver/text/added_tokens.h"

#include <algorithm>

#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

std::uint8_t first_byte(std::string_view text) { return static_cast<std::uint8_t>(text.front()); }

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0 && is_word(code_point_before(text, static_cast<std::int64_t>(begin)).value)) return true;
  return end < text.size() && is_word(code_point_at(text, static_cast<std::int64_t>(end)).value);
}

std::size_t skip_spaces_back(std::string_view text, std::size_t begin, std::size_t limit) {
  while (begin > limit) {
    const CodePoint point = code_point_before(text, static_cast<std::int64_t>(begin));
    if (!is_white_space(point.value)) break;
    begin -= static_cast<std::size_t>(point.num_bytes);
  }
  return begin;
}

std::size_t skip_spaces(std::string_view text, std::size_t end) {
  while (end < text.size()) {
    const CodePoint point = code_point_at(text, static_cast<std::int64_t>(end));
    if (!is_white_space(point.value)) break;
    end += static_cast<std::size_t>(point.num_bytes);
  }
  return end;
}

}  // namespace

TokenFinder::TokenFinder(const std::vector<AddedToken>& tokens, const Normalizer& normalizer) : by_first_byte_(256) {
  for (const AddedToken& token : tokens) {
    std::string content = normalize(normalizer, token.content);
    if (!content.empty()) entries_.push_back({std::move(content), token});
  }
  std::ranges::stable_sort(entries_, {}, &Entry::content);
  const auto is_twice = [](const Entry& a, const Entry& b) { return a.content == b.content; };
  entries_.erase(std::unique(entries_.begin(), entries_.end(), is_twice), entries_.end());
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    auto& [begin, end] = by_first_byte_[first_byte(entries_[i].content)];
    if (begin == end) begin = i;
    end = i + 1;
  }
}

const TokenFinder::Entry* TokenFinder::longest_at(std::string_view text, std::size_t offset) const {
  // Entries [begin, end) begin with the `length` bytes at `offset`.
  auto [begin, end] = by_first_byte_[first_byte(text.substr(offset))];
  const Entry* longest = nullptr;
  for (std::size_t length = 1; begin < end; ++length) {
    if (entries_[begin].content.size() == length) longest = &entries_[begin++];
    if (offset + length == text.size()) break;
    const auto next = static_cast<std::uint8_t>(text[offset + length]);
    const auto byte_of = [length](const Entry& entry) { return static_cast<std::uint8_t>(entry.content[length]); };
    const auto first = entries_.begin() + static_cast<std::ptrdiff_t>(begin), last = entries_.begin() + static_cast<std::ptrdiff_t>(end);
    begin = static_cast<std::size_t>(std::ranges::lower_bound(first, last, next, {}, byte_of) - entries_.begin());
    end = static_cast<std::size_t>(std::ranges::upper_bound(first, last, next, {}, byte_of) - entries_.begin());
  }
  return longest;
}

void TokenFinder::split(std::string_view text, std::vector<Segment>& out) const {
  std::size_t done = 0;  // everything before is in `out`
  for (std::size_t i = 0; i < text.size() && !entries_.empty();) {
    const Entry* entry = longest_at(text, i);
    if (entry == nullptr) {
      ++i;
      continue;
    }
    std::size_t begin = i;
    std::size_t end = i + entry->content.size();
    i = end;  // the search goes on here even if the token does not count, or takes white space along
    if (entry->token.single_word && touches_word(text, begin, end)) continue;
    if (entry->token.lstrip) begin = skip_spaces_back(text, begin, std::min(done, begin));
    if (entry->token.rstrip) end = skip_spaces(text, end);
    if (done < begin) out.push_back({text.substr(done, begin - done), std::nullopt});
    out.push_back({text.substr(begin, end - begin), entry->token.id});
    done = end;
  }
  if (done < text.size()) out.push_back({text.substr(done), std::nullopt});
}

}  // namespace quiver::text
