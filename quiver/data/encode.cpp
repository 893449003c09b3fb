#include "quiver/data/encode.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/text/unicode.h"

namespace quiver::data {
namespace {

bool ends_in_space(std::string_view text) { return !text.empty() && (text.back() == ' ' || text.back() == '\n'); }
bool starts_with_space(std::string_view text) { return !text.empty() && (text.front() == ' ' || text.front() == '\n'); }

/// Bytes of white space (as Python's str.rstrip sees it) at the end of valid UTF-8.
std::size_t trailing_white_space(std::string_view text) {
  const auto size = text.size();
  while (!text.empty()) {
    const auto last = code_point_before(text, std::ssize(text));
    if (!text::is_python_space(last.value)) break;
    text.remove_suffix(static_cast<std::size_t>(last.num_bytes));
  }
  return size - text.size();
}

struct RequestParts {
  std::string head;  ///< the context without the white space at its end
  std::string tail;  ///< that white space and the continuation
};

RequestParts split_request(std::string_view context, std::string_view continuation) {
  if (continuation.empty()) fail(ErrorKind::kUsage, "the continuation is empty");
  const auto size = context.size() - trailing_white_space(context);
  return {.head = std::string(context.substr(0, size)), .tail = std::string(context.substr(size)) + std::string(continuation)};
}

/// `tokens` of context and continuation, of which the first num_context are the context's.
forest::Sequence joined(std::vector<std::int32_t> tokens, std::size_t num_context, std::string_view continuation) {
  if (tokens.size() <= num_context) {
    fail(ErrorKind::kUsage,
         "the continuation '{}' has no token of its own: context and continuation together have {} tokens, the context alone {}",
         std::string(continuation), tokens.size(), num_context);
  }
  forest::Sequence sequence{.tokens = std::move(tokens)};
  sequence.num_targets = static_cast<std::int64_t>(sequence.tokens.size() - num_context);
  return sequence;
}

/// BOS where the tokenizer puts it before a text by itself, else nothing.
std::vector<std::int32_t> start_of(const text::Tokenizer& tokenizer) {
  const auto special = tokenizer.encode("", {.add_special_tokens = true});
  const auto bos = tokenizer.bos_id();
  if (special.empty() || !bos || special.front() != *bos) return {};
  return {*bos};
}

}  // namespace

std::vector<std::int32_t> encode_text(const text::Tokenizer& tokenizer, std::string_view text) {
  auto tokens = start_of(tokenizer);
  const auto ids = tokenizer.encode(text);
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  return tokens;
}

std::int64_t cut_left(const text::Tokenizer& tokenizer, std::vector<std::int32_t>& tokens, std::int64_t max_length) {
  const auto size = static_cast<std::int64_t>(tokens.size());
  if (max_length <= 0 || size <= max_length) return 0;
  const auto start = start_of(tokenizer);
  const auto num_start = static_cast<std::ptrdiff_t>(start.size());
  const bool keeps_start = num_start < max_length && std::equal(start.begin(), start.end(), tokens.begin());
  const auto first = tokens.begin() + (keeps_start ? num_start : 0);
  tokens.erase(first, first + (size - max_length));
  return size - max_length;
}

forest::Sequence encode_example(const text::Tokenizer& tokenizer, std::string_view source, std::string_view target,
                                std::int64_t max_length) {
  const auto eos = tokenizer.eos_id();
  if (!eos) fail(ErrorKind::kUnsupported, "the tokenizer has no end-of-sequence token, which training and evaluation need");
  std::string head(source), tail(target);
  if (head.ends_with(' ')) {
    head.pop_back();
    tail.insert(tail.begin(), ' ');
  } else if (!ends_in_space(head) && !starts_with_space(tail)) {
    tail.insert(tail.begin(), ' ');
  }
  forest::Sequence sequence;
  sequence.tokens = encode_text(tokenizer, head + tail);
  sequence.tokens.push_back(*eos);
  sequence.num_targets = static_cast<std::int64_t>(tokenizer.encode(tail, {.place = text::TextPlace::kContinued}).size()) + 1;
  cut_left(tokenizer, sequence.tokens, max_length);
  sequence.num_targets = std::min(sequence.num_targets, static_cast<std::int64_t>(sequence.tokens.size()) - 1);
  return sequence;
}

std::vector<std::int32_t> encode_prompt(const text::Tokenizer& tokenizer, std::string_view source, std::int64_t max_length) {
  if (source.ends_with(' ')) source.remove_suffix(1);
  auto tokens = encode_text(tokenizer, source);
  cut_left(tokenizer, tokens, max_length);
  return tokens;
}

forest::Sequence encode_request(const text::Tokenizer& tokenizer, std::string_view context, std::string_view continuation) {
  const auto parts = split_request(context, continuation);
  if (!parts.head.empty())
    return joined(encode_text(tokenizer, parts.head + parts.tail), encode_text(tokenizer, parts.head).size(), continuation);
  const auto start = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
  if (!start) fail(ErrorKind::kUsage, "the context is empty and the tokenizer has neither BOS nor EOS to start from");
  auto tokens = tokenizer.encode(parts.tail);
  tokens.insert(tokens.begin(), *start);
  return joined(std::move(tokens), 1, continuation);
}

forest::Sequence encode_rendered_request(const text::Tokenizer& tokenizer, std::string_view context, std::string_view continuation) {
  const auto parts = split_request(context, continuation);
  return joined(tokenizer.encode(parts.head + parts.tail), tokenizer.encode(parts.head).size(), continuation);
}

}  // namespace quiver::data
