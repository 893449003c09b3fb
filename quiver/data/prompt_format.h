// How text becomes the tokens that a model reads: bare, or as a conversation in the model's chat template.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/data/tasks.h"
#include "quiver/forest/token_forest.h"
#include "quiver/text/chat_template.h"
#include "quiver/text/tokenizer.h"

namespace quiver::data {

/// Which messages of the assistant a conversation is trained on.
enum class TrainOn { kAll, kLast };

/// Bare text without a template; with one, a source is the user's message and a target the assistant's. A value type.
struct PromptFormat {
  std::optional<text::ChatTemplate> chat;
  std::string system;  ///< for conversations that bring no system message; empty: what the template does without one
  TrainOn train_on = TrainOn::kAll;
};

/// Reads the "messages" of a request: a conversation in turn that ends with the user's, whom the model answers. Throws as
/// text::parse_messages and text::check_turns, and kBadFormat for another end.
std::vector<text::Message> read_request(const nlohmann::json& messages, const std::string& where);

/// What tells formats apart, for records and messages: "bare text", or "chat template" with the first half of the template's SHA-256 and
/// the system message if there is one.
std::string describe(const PromptFormat& format);

/// The same format, whose targets are the last answer alone: what is evaluated.
PromptFormat of_last_answer(PromptFormat format);

/// The messages with the format's system message in front, where they have none.
std::vector<text::Message> with_system(const PromptFormat& format, std::vector<text::Message> messages);

/// Sequence to train on and to score; its name is the example's `where`.
///
/// Bare: as encode_example of source and first target (data/encode.h). Chat: the rendered conversation; its targets are the assistant's
/// messages (all, or the last by `train_on`), each with the special token that ends it, or EOS at the end where the template writes none.
/// A message of the assistant begins a new token where the template's generation prompt ends, since generation begins there. More than
/// max_length tokens are cut from the left, after BOS (0: no limit); at least one token stays before the first target.
///
/// Throws kUsage for a conversation in bare format; kUnsupported where the template writes a message differently after a generation prompt,
/// or once other messages follow it, so that no token could be trained as it is generated; and as ChatTemplate::render.
forest::Sequence encode_example(const text::Tokenizer& tokenizer, const PromptFormat& format, const Example& example,
                                std::int64_t max_length);

/// What the model continues, cut from the left, after BOS, to max_length tokens (0: no limit): the source, or the conversation up to the
/// assistant's last message with the template's generation prompt. Throws as encode_example, and kUsage for a prompt without tokens.
std::vector<std::int32_t> encode_prompt(const text::Tokenizer& tokenizer, const PromptFormat& format, const Example& example,
                                        std::int64_t max_length);
/// The same for messages that end with the user's; `where` names them in errors. Throws kUsage in bare format.
std::vector<std::int32_t> encode_messages(const text::Tokenizer& tokenizer, const PromptFormat& format, std::vector<text::Message> messages,
                                          const std::string& where);

/// The same for one text: bare, the text as it is (encode_text in data/encode.h); in chat, the user's message.
std::vector<std::int32_t> encode_user_text(const text::Tokenizer& tokenizer, const PromptFormat& format, std::string_view text,
                                           const std::string& where);

/// Continuation after context. Bare: as encode_request (data/encode.h). Chat: the context is the user's message, and the continuation
/// begins the assistant's; nothing ends it. `where` is the sequence's name and begins messages. Throws kUsage for an empty continuation,
/// and as ChatTemplate::render.
forest::Sequence encode_request(const text::Tokenizer& tokenizer, const PromptFormat& format, std::string_view context,
                                std::string_view continuation, const std::string& where);
/// The same as lm-evaluation-harness counts it: in chat, white space that ends the rendered prompt is the continuation's, too. So the line
/// break of "<|im_start|>assistant\n" is a target of every choice.
forest::Sequence encode_choice(const text::Tokenizer& tokenizer, const PromptFormat& format, std::string_view context,
                               std::string_view continuation, const std::string& where);
/// As encode_request, after messages that end with the user's. Throws kUsage in bare format.
forest::Sequence encode_request(const text::Tokenizer& tokenizer, const PromptFormat& format, std::vector<text::Message> messages,
                                std::string_view continuation, const std::string& where);

/// Ids that end an answer: the tokenizer's, and the special token that ends the assistant's message in the template.
std::vector<std::int32_t> stop_ids(const text::Tokenizer& tokenizer, const PromptFormat& format);

}  // namespace quiver::data
