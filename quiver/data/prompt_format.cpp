#include "quiver/data/prompt_format.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/data/encode.h"

namespace quiver::data {
namespace {

using text::Message;
using text::Tokenizer;
using Ids = std::vector<std::int32_t>;

constexpr std::string_view kWhiteSpace = " \t\r\n\f\v";

void append(Ids& ids, std::span<const std::int32_t> more) { ids.insert(ids.end(), more.begin(), more.end()); }

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(kWhiteSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kWhiteSpace) + 1 - first);
}

/// A row's conversation, system message included.
std::vector<Message> conversation(const PromptFormat& format, const Example& example) {
  if (!example.messages.empty()) return with_system(format, example.messages);
  return with_system(format, {{"user", example.source}, {"assistant", example.targets.at(0)}});
}

void refuse_bare(const PromptFormat& format, const Example& example) {
  if (format.chat || example.messages.empty()) return;
  fail(ErrorKind::kUsage,
       "{}: the row is a conversation, which bare text cannot hold: use a base with a chat template, without `chat=false`", example.where);
}

/// Where the assistant's message ends in the tokens of `rest`, the text from the message on: past the special token that closes it. Nothing
/// if no special token does.
std::optional<std::size_t> message_end(const Tokenizer& tokenizer, const Ids& ids, std::string_view rest, std::string_view content) {
  const auto inner = trimmed(content);
  const auto begin = rest.find(inner);
  const auto head = begin == std::string_view::npos ? rest.substr(0, 0) : rest.substr(0, begin + inner.size());
  auto inside = std::ranges::count_if(tokenizer.encode(head), [&](std::int32_t id) { return tokenizer.is_special(id); });
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (tokenizer.is_special(ids[i]) && inside-- == 0) return i + 1;
  }
  return std::nullopt;
}

/// Where a text stands that goes on after `ids`.
text::TextPlace place_after(const Tokenizer& tokenizer, const Ids& ids) {
  if (ids.empty()) return text::TextPlace::kStart;
  return tokenizer.is_special(ids.back()) ? text::TextPlace::kAfterToken : text::TextPlace::kContinued;
}

/// How a message about the row that `where` names begins.
std::string begins(const std::string& where) { return where.empty() ? "" : where + ": "; }

/// f(), whose errors begin with the row that `where` names.
template <typename F>
auto at_row(const std::string& where, F f) {
  try {
    return f();
  } catch (const Error& error) {
    fail(error.kind(), "{}{}", begins(where), error.what());
  }
}

/// The template's text of messages; errors name the row.
std::string render(const PromptFormat& format, std::span<const Message> messages, bool add_generation_prompt, const std::string& where) {
  return at_row(where, [&] { return format.chat->render(messages, add_generation_prompt); });
}

/// One message of the assistant in the text of its conversation.
struct Turn {
  std::size_t begin = 0;  ///< byte where the template's generation prompt ends
  std::string_view content;
};

/// The assistant's messages to train on, in order. Throws kUnsupported where `whole` does not go on from a generation prompt.
std::vector<Turn> turns_of(const PromptFormat& format, const std::vector<Message>& messages, const std::string& whole,
                           const std::string& where) {
  std::vector<Turn> turns;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    const bool is_last = i + 1 == messages.size();
    if (!is_last && format.train_on == TrainOn::kLast) continue;
    const auto prompt = render(format, std::span(messages).first(i), /*add_generation_prompt=*/true, where);
    if (!whole.starts_with(prompt)) {
      fail(ErrorKind::kUnsupported, "{}: the template in {} writes messages[{}] otherwise {}; {}", where, format.chat->origin(), i,
           is_last ? "than after its generation prompt" : "once other messages follow",
           is_last ? "train with `chat=false`" : "train on the last message alone (`train_on=last`)");
    }
    turns.push_back({prompt.size(), messages[i].content});
  }
  return turns;
}

void cut_left(const Tokenizer& tokenizer, forest::Sequence& sequence, std::int64_t max_length) {
  const auto size = static_cast<std::int64_t>(sequence.tokens.size());
  const auto cut = data::cut_left(tokenizer, sequence.tokens, max_length);
  sequence.num_targets = std::min(sequence.num_targets, size - cut - 1);
  const auto first = size - cut - sequence.num_targets;
  std::vector<forest::TokenSpan> kept;
  for (const auto& gap : sequence.gaps) {
    const forest::TokenSpan moved{std::max(gap.begin - cut, first), gap.end - cut};
    if (moved.begin < moved.end) kept.push_back(moved);
  }
  sequence.gaps = std::move(kept);
}

/// The rendered conversation with the turns' tokens as targets.
forest::Sequence encode_turns(const Tokenizer& tokenizer, const std::string& whole, std::span<const Turn> turns) {
  forest::Sequence sequence;
  append(sequence.tokens, tokenizer.encode(std::string_view(whole).substr(0, turns.front().begin)));
  const auto first = static_cast<std::int64_t>(sequence.tokens.size());
  for (std::size_t t = 0; t < turns.size(); ++t) {
    const bool is_last = t + 1 == turns.size();
    const auto rest = std::string_view(whole).substr(turns[t].begin, is_last ? std::string::npos : turns[t + 1].begin - turns[t].begin);
    auto ids = tokenizer.encode(rest, {.place = place_after(tokenizer, sequence.tokens)});
    auto end = message_end(tokenizer, ids, rest, turns[t].content);
    if (is_last && end) ids.resize(*end);
    if (is_last && !end) {
      if (!tokenizer.eos_id()) fail(ErrorKind::kUnsupported, "neither the chat template nor the tokenizer has a token that ends a message");
      ids.push_back(*tokenizer.eos_id());
    }
    const auto begin = static_cast<std::int64_t>(sequence.tokens.size());
    append(sequence.tokens, ids);
    // Without a token that ends it, a turn between others is learnt up to where the next begins.
    if (!is_last && end && *end < ids.size()) {
      sequence.gaps.push_back({begin + static_cast<std::int64_t>(*end), begin + static_cast<std::int64_t>(ids.size())});
    }
  }
  sequence.num_targets = static_cast<std::int64_t>(sequence.tokens.size()) - first;
  return sequence;
}

}  // namespace

std::vector<Message> read_request(const nlohmann::json& list, const std::string& where) {
  auto messages = text::parse_messages(list, where);
  text::check_turns(messages, where);
  if (messages.back().role != "user") {
    fail(ErrorKind::kBadFormat, "{}: the messages end with role '{}'; expected 'user', whom the model answers", where,
         messages.back().role);
  }
  return messages;
}

std::string describe(const PromptFormat& format) {
  if (!format.chat) return "bare text";
  auto text = "chat template " + format.chat->sha256().substr(0, 32);
  if (!format.system.empty()) text += " with system message '" + format.system + "'";
  return text;
}

PromptFormat of_last_answer(PromptFormat format) {
  format.train_on = TrainOn::kLast;
  return format;
}

std::vector<Message> with_system(const PromptFormat& format, std::vector<Message> messages) {
  const bool has_system = !messages.empty() && messages.front().role == "system";
  if (!format.system.empty() && !has_system) messages.insert(messages.begin(), {"system", format.system});
  return messages;
}

forest::Sequence encode_example(const Tokenizer& tokenizer, const PromptFormat& format, const Example& example, std::int64_t max_length) {
  refuse_bare(format, example);
  forest::Sequence sequence;
  if (format.chat) {
    const auto messages = conversation(format, example);
    const auto whole = render(format, messages, /*add_generation_prompt=*/false, example.where);
    sequence = encode_turns(tokenizer, whole, turns_of(format, messages, whole, example.where));
    cut_left(tokenizer, sequence, max_length);
  } else {
    sequence = encode_example(tokenizer, example.source, example.targets.at(0), max_length);
  }
  sequence.name = example.where;
  return sequence;
}

Ids encode_prompt(const Tokenizer& tokenizer, const PromptFormat& format, const Example& example, std::int64_t max_length) {
  refuse_bare(format, example);
  Ids ids;
  if (format.chat) {
    auto messages = conversation(format, example);
    messages.pop_back();
    ids = tokenizer.encode(render(format, messages, /*add_generation_prompt=*/true, example.where));
    data::cut_left(tokenizer, ids, max_length);
  } else {
    ids = encode_prompt(tokenizer, example.source, max_length);
  }
  if (ids.empty()) fail(ErrorKind::kUsage, "{}the prompt has no tokens; give it text", begins(example.where));
  return ids;
}

Ids encode_messages(const Tokenizer& tokenizer, const PromptFormat& format, std::vector<Message> messages, const std::string& where) {
  if (!format.chat) {
    fail(ErrorKind::kUsage, "{}messages need a chat template: use a base that has one, without `chat=false`", begins(where));
  }
  return tokenizer.encode(render(format, with_system(format, std::move(messages)), /*add_generation_prompt=*/true, where));
}

Ids encode_user_text(const Tokenizer& tokenizer, const PromptFormat& format, std::string_view text, const std::string& where) {
  if (!format.chat) return encode_text(tokenizer, text);
  return encode_messages(tokenizer, format, {{"user", std::string(text)}}, where);
}

forest::Sequence encode_request(const Tokenizer& tokenizer, const PromptFormat& format, std::string_view context,
                                std::string_view continuation, const std::string& where) {
  if (format.chat) return encode_request(tokenizer, format, std::vector<Message>{{"user", std::string(context)}}, continuation, where);
  auto sequence = at_row(where, [&] { return encode_request(tokenizer, context, continuation); });
  sequence.name = where;
  return sequence;
}

forest::Sequence encode_request(const Tokenizer& tokenizer, const PromptFormat& format, std::vector<Message> messages,
                                std::string_view continuation, const std::string& where) {
  if (continuation.empty()) fail(ErrorKind::kUsage, "{}the continuation is empty", begins(where));
  forest::Sequence sequence{.tokens = encode_messages(tokenizer, format, std::move(messages), where)};
  const auto answer = tokenizer.encode(continuation, {.place = place_after(tokenizer, sequence.tokens)});
  append(sequence.tokens, answer);
  sequence.num_targets = static_cast<std::int64_t>(answer.size());
  sequence.name = where;
  return sequence;
}

forest::Sequence encode_choice(const Tokenizer& tokenizer, const PromptFormat& format, std::string_view context,
                               std::string_view continuation, const std::string& where) {
  if (!format.chat) return encode_request(tokenizer, format, context, continuation, where);
  const auto prompt = render(format, with_system(format, {{"user", std::string(context)}}), /*add_generation_prompt=*/true, where);
  auto sequence = at_row(where, [&] { return encode_rendered_request(tokenizer, prompt, continuation); });
  sequence.name = where;
  return sequence;
}

Ids stop_ids(const Tokenizer& tokenizer, const PromptFormat& format) {
  Ids ids(tokenizer.eos_ids().begin(), tokenizer.eos_ids().end());
  if (!format.chat) return ids;
  const auto last = encode_example(tokenizer, format, {.source = "question", .targets = {"answer"}}, 0).tokens.back();
  if (std::ranges::find(ids, last) == ids.end()) ids.push_back(last);
  return ids;
}

}  // namespace quiver::data
