// Chat templates: a conversation as the text that a chat model was trained on.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/text/jinja.h"
#include "quiver/text/tokenizer.h"

namespace quiver::text {

/// One turn of a conversation. `role` is "system", "user" or "assistant".
struct Message {
  std::string role;
  std::string content;
};

/// Reads [{"role": ..., "content": ...}, ...]. `content` may be a list of {"type": "text", "text": ...}, which are joined by line breaks.
/// A member that is null is ignored. Throws kBadFormat, naming `where` and the message's index, for anything else, and kUnsupported for
/// content that is not text and for further members, such as tool calls.
std::vector<Message> parse_messages(const nlohmann::json& list, const std::string& where);

/// Checks that a conversation has the order that models are trained on: at most one system message, at the start; then user and assistant
/// in turn, beginning with the user. Throws kBadFormat, naming `where` and the first message that is out of order.
void check_turns(std::span<const Message> messages, const std::string& where);

/// A model's chat template with the special tokens that it may name. A value type; rendering is thread-safe.
class ChatTemplate {
 public:
  /// `tokenizer` gives the spellings of bos_token, eos_token and pad_token. Throws as Jinja::parse.
  ChatTemplate(std::string source, std::string origin, const Tokenizer& tokenizer);

  /// The text of a conversation, as transformers' apply_chat_template(tokenize=False) gives it. With `add_generation_prompt` the text ends
  /// where the assistant's next message begins. Templates write the BOS token themselves, so encode the text without special tokens.
  /// Throws as Jinja::render.
  std::string render(std::span<const Message> messages, bool add_generation_prompt) const;

  const std::string& origin() const { return origin_; }
  /// SHA-256 of the template's source: what tells two formats apart.
  const std::string& sha256() const { return sha256_; }
  const std::string& source() const { return source_; }

 private:
  std::string source_, origin_, sha256_;
  Jinja jinja_;
  std::vector<std::pair<std::string, std::string>> special_tokens_;  // name, spelling
};

/// Finds the template of a base: in a Hugging Face folder, chat_template.jinja, else `chat_template` of tokenizer_config.json (a string, or
/// a list of {"name", "template"} with one named "default"), else tokenizer.gguf; in a .gguf file, tokenizer.chat_template.
/// Nothing if the base has none. Throws as Jinja::parse, and kBadFormat for a chat_template of another kind.
std::optional<ChatTemplate> load_chat_template(const std::filesystem::path& path, const Tokenizer& tokenizer);

}  // namespace quiver::text
