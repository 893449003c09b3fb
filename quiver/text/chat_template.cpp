#include "quiver/text/chat_template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/file.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"

namespace quiver::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kTemplateKey = "chat_template";
constexpr const char* kGgufTemplateKey = "tokenizer.chat_template";

/// The text of a message: a string, or a list of text parts.
std::string read_content(const json& message, const std::string& where) {
  const auto found = message.find("content");
  if (found == message.end() || found->is_null()) fail(ErrorKind::kBadFormat, "{}: the message has no 'content'", where);
  if (!found->is_array()) return io::require_string(message, "content", where);
  std::string text;
  for (const auto& part : *found) {
    const auto type = io::require_string(part, "type", where + ": a part of 'content'");
    if (type != "text") fail(ErrorKind::kUnsupported, "{}: a part of 'content' is of type '{}'; Quiver reads text alone", where, type);
    if (&part != &found->front()) text += '\n';
    text += io::require_string(part, "text", where + ": a part of 'content'");
  }
  return text;
}

Message read_message(const json& message, const std::string& where) {
  Message result{.role = io::require_string(message, "role", where)};
  if (result.role != "system" && result.role != "user" && result.role != "assistant") {
    fail(result.role == "tool" ? ErrorKind::kUnsupported : ErrorKind::kBadFormat, "{}: role '{}' is not one of system, user, assistant",
         where, result.role);
  }
  for (const auto& [key, value] : message.items()) {
    if (key == "role" || key == "content" || value.is_null()) continue;
    fail(ErrorKind::kUnsupported, "{}: the message has a member '{}'; Quiver reads 'role' and 'content' alone", where, key);
  }
  result.content = read_content(message, where);
  return result;
}

std::optional<std::string> template_of_gguf(const fs::path& path) {
  const io::MappedFile file(path);
  const auto view = io::GgufView::parse(file.bytes(), path.string());
  const auto* found = view.find_string(kGgufTemplateKey);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

std::optional<std::string> template_of_config(const fs::path& path) {
  const auto config = io::read_json_file(path);
  if (!config.is_object() || !config.contains(kTemplateKey)) return std::nullopt;
  const auto& value = config.at(kTemplateKey);
  if (value.is_null()) return std::nullopt;
  if (value.is_string()) return value.get<std::string>();
  const auto where = format("{}: {}", path.string(), kTemplateKey);
  if (!value.is_array()) fail(ErrorKind::kBadFormat, "{} is neither a string nor a list of named templates", where);
  for (const auto& entry : value) {
    if (io::require_string(entry, "name", where) == "default") return io::require_string(entry, "template", where);
  }
  fail(ErrorKind::kBadFormat, "{} lists {} templates and none is named 'default'", where, value.size());
}

}  // namespace

std::vector<Message> parse_messages(const json& list, const std::string& where) {
  if (!list.is_array()) fail(ErrorKind::kBadFormat, "{}: messages are not a list of {{\"role\", \"content\"}}", where);
  if (list.empty()) fail(ErrorKind::kBadFormat, "{}: the list of messages is empty", where);
  std::vector<Message> messages;
  for (const auto& message : list) messages.push_back(read_message(message, format("{}: messages[{}]", where, messages.size())));
  return messages;
}

void check_turns(std::span<const Message> messages, const std::string& where) {
  std::string before = "system";
  bool has_user = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& role = messages[i].role;
    const bool is_right = role == "system" ? i == 0 : role == "user" ? before != "user" : before == "user";
    if (!is_right) {
      fail(ErrorKind::kBadFormat,
           "{}: messages[{}] is of role '{}' {}; expected a system message at most once and first, then user and assistant in turn", where,
           i, role, i == 0 ? "at the start" : format("after '{}'", before));
    }
    has_user = has_user || role == "user";
    before = role;
  }
  if (!has_user) fail(ErrorKind::kBadFormat, "{}: the conversation has no message of role 'user'", where);
}

ChatTemplate::ChatTemplate(std::string source, std::string origin, const Tokenizer& tokenizer)
    : source_(std::move(source)), origin_(std::move(origin)), sha256_(sha256_hex(source_)), jinja_(Jinja::parse(source_, origin_)) {
  const std::pair<const char*, std::optional<std::int32_t>> ids[] = {
      {"bos_token", tokenizer.bos_id()}, {"eos_token", tokenizer.eos_id()}, {"pad_token", tokenizer.pad_id()}};
  for (const auto& [name, id] : ids) {
    const auto spelling = id ? tokenizer.token(*id) : std::nullopt;
    if (spelling) special_tokens_.emplace_back(name, *spelling);
  }
}

std::string ChatTemplate::render(std::span<const Message> messages, bool add_generation_prompt) const {
  nlohmann::ordered_json variables;
  auto& list = variables["messages"] = nlohmann::ordered_json::array();
  for (const auto& [role, content] : messages) list.push_back({{"role", role}, {"content", content}});
  variables["add_generation_prompt"] = add_generation_prompt;
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  for (const auto& [name, spelling] : special_tokens_) variables[name] = spelling;
  return jinja_.render(variables);
}

std::optional<ChatTemplate> load_chat_template(const fs::path& path, const Tokenizer& tokenizer) {
  const auto made = [&](std::optional<std::string> source, const std::string& origin) -> std::optional<ChatTemplate> {
    if (!source) return std::nullopt;
    return ChatTemplate(std::move(*source), origin, tokenizer);
  };
  if (!fs::is_directory(path)) {
    if (path.extension() != ".gguf") return std::nullopt;
    return made(template_of_gguf(path), format("{}: {}", path.string(), kGgufTemplateKey));
  }
  if (fs::exists(path / kTemplateFile)) return made(io::read_text_file(path / kTemplateFile), (path / kTemplateFile).string());
  if (fs::exists(path / kConfigFile)) {
    auto found = made(template_of_config(path / kConfigFile), format("{}: {}", (path / kConfigFile).string(), kTemplateKey));
    if (found) return found;
  }
  if (fs::exists(path / "tokenizer.json") || !fs::exists(path / kGgufTokenizerFile)) return std::nullopt;
  return made(template_of_gguf(path / kGgufTokenizerFile), format("{}: {}", (path / kGgufTokenizerFile).string(), kGgufTemplateKey));
}

}  // namespace quiver::text
