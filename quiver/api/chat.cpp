#include "quiver/api/chat.h"

#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::api {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostMessages = 4096;

std::string read_parts(const std::string& param, const json& parts) {
  std::string text;
  std::size_t index = 0;
  for (const auto& part : parts) {
    const auto where = format("{}[{}]", param, index);
    Fields fields(part, where + ".");
    const auto type = fields.text("type");
    if (!type)
      throw ApiError(Reason::kInvalidRequest, format("'{}' has no 'type'; expected {{\"type\":\"text\",\"text\":...}}", where), where);
    if (*type != "text") {
      throw ApiError(Reason::kUnsupportedValue, format("'{}' is of type '{}'; the models read text alone", where, clipped(*type)),
                     where + ".type");
    }
    const auto value = fields.text("text");
    if (!value) throw ApiError(Reason::kInvalidRequest, format("'{}' has no 'text'", where), where + ".text");
    if (index++ > 0) text += '\n';
    text += *value;
  }
  return text;
}

std::string read_role(Fields& fields) {
  const auto role = fields.text("role");
  const auto param = fields.param("role");
  if (!role)
    throw ApiError(Reason::kInvalidRequest, format("'{}' is missing; expected system, developer, user or assistant", param), param);
  if (*role == "developer") return "system";
  if (*role == "tool" || *role == "function") {
    throw ApiError(Reason::kUnsupportedValue, format("'{}' is '{}'; calls of tools are not supported", param, *role), param);
  }
  if (*role != "system" && *role != "user" && *role != "assistant") {
    throw ApiError(Reason::kInvalidRequest, format("'{}' is '{}'; expected system, developer, user or assistant", param, clipped(*role)),
                   param);
  }
  return *role;
}

std::optional<std::int64_t> read_max_tokens(Fields& fields) {
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  const auto newer = fields.integer("max_completion_tokens", 0, kMost), older = fields.integer("max_tokens", 0, kMost);
  if (newer && older && *newer != *older) {
    throw ApiError(Reason::kInvalidRequest,
                   format("'max_completion_tokens' is {} and 'max_tokens' is {}; give one of the two", *newer, *older), "max_tokens");
  }
  return newer ? newer : older;
}

AnswerStart read_start(Fields& fields, bool last_is_assistant) {
  const auto continues = fields.boolean("continue_final_message"), adds_prompt = fields.boolean("add_generation_prompt");
  if (continues == true && adds_prompt == true) {
    throw ApiError(Reason::kInvalidRequest, "'continue_final_message' and 'add_generation_prompt' are both true; the answer has one start",
                   "continue_final_message");
  }
  if (continues == true && !last_is_assistant) {
    throw ApiError(Reason::kInvalidRequest, "'continue_final_message' is true, but the last message is not the assistant's",
                   "continue_final_message");
  }
  if (continues.value_or(last_is_assistant && !adds_prompt)) return AnswerStart::kFinalMessage;
  return adds_prompt.value_or(true) ? AnswerStart::kNewMessage : AnswerStart::kWithoutHeader;
}

void read_log_probs(Fields& fields, ChatRequest& request) {
  request.gives_log_probs = fields.boolean("logprobs").value_or(false);
  request.top_log_probs = fields.integer("top_logprobs", 0, 20).value_or(0);
  if (request.top_log_probs > 0 && !request.gives_log_probs) {
    throw ApiError(Reason::kInvalidRequest, "'top_logprobs' is only allowed when 'logprobs' is true", "top_logprobs");
  }
  request.generation.options.top_log_probs = request.gives_log_probs ? request.top_log_probs : -1;
}

void refuse_chat_fields(Fields& fields) {
  for (const char* name : {"tools", "functions"}) fields.refuse(name, "is not supported; the models call no tools");
  for (const char* name : {"tool_choice", "function_call"}) {
    const json* value = fields.find(name);
    if (value != nullptr && *value != "none") fields.refuse(name, "is not supported; the models call no tools");
  }
  const json* modalities = fields.array("modalities");
  if (modalities != nullptr && *modalities != json::array({"text"})) {
    throw ApiError(Reason::kUnsupportedValue, "'modalities' asks for more than [\"text\"]; answers are text", "modalities");
  }
  for (const char* name : {"audio", "prediction", "web_search_options", "moderation"}) fields.refuse(name, "is not supported");
  fields.refuse("chat_template", "is not supported in a request; the server's operator sets the template");
  for (const char* name : {"parallel_tool_calls", "reasoning_effort", "verbosity", "chat_template_kwargs"}) fields.ignore(name);
}

}  // namespace

std::vector<text::Message> read_messages(const json& list, UnknownFields unknown_fields, std::vector<std::string>& ignored_fields) {
  if (!list.is_array() || list.empty() || static_cast<std::int64_t>(list.size()) > kMostMessages) {
    fail_field("messages", list, format("an array of 1 to {} messages", kMostMessages));
  }
  std::vector<text::Message> messages;
  std::set<std::string> ignored_names;
  for (const auto& value : list) {
    std::vector<std::string> ignored;
    const auto where = format("messages[{}]", messages.size());
    Fields fields(value, where + ".");
    text::Message message{.role = read_role(fields)};
    const json* content = fields.find("content");
    if (content == nullptr) {
      if (message.role != "assistant") {
        throw ApiError(Reason::kInvalidRequest, format("'{}.content' is missing; expected a string or an array of text parts", where),
                       where + ".content");
      }
    } else if (content->is_array()) {
      message.content = read_parts(where + ".content", *content);
    } else if (content->is_string()) {
      message.content = content->get<std::string>();
    } else {
      fail_field(where + ".content", *content, "a string or an array of text parts");
    }
    for (const char* name : {"tool_calls", "function_call", "audio"}) fields.refuse(name, "is not supported; messages are text");
    for (const char* name : {"name", "refusal", "annotations"}) fields.ignore(name);
    settle_unknown_fields(fields, unknown_fields, ignored);
    for (const auto& name : ignored) ignored_names.insert("messages" + name.substr(where.size()));  // without the index
    messages.push_back(std::move(message));
  }
  ignored_fields.insert(ignored_fields.end(), ignored_names.begin(), ignored_names.end());
  return messages;
}

ChatRequest parse_chat(const json& body, const RequestLimits& limits) {
  Fields fields(body);
  ChatRequest request;
  const json* list = fields.find("messages");
  if (list == nullptr) throw ApiError(Reason::kInvalidRequest, "'messages' is missing; expected an array of messages", "messages");
  std::vector<std::string> ignored_of_messages;
  request.messages = read_messages(*list, limits.unknown_fields, ignored_of_messages);
  const auto max_tokens = read_max_tokens(fields);
  request.generation = read_generation(fields, limits, /*num_prompts=*/1, max_tokens);
  request.start = read_start(fields, request.messages.back().role == "assistant");
  read_log_probs(fields, request);
  refuse_chat_fields(fields);
  auto& ignored = request.generation.ignored_fields;
  settle_unknown_fields(fields, limits.unknown_fields, ignored);
  ignored.insert(ignored.end(), ignored_of_messages.begin(), ignored_of_messages.end());
  return request;
}

std::string render_chat(const text::ChatTemplate& chat_template, std::span<const text::Message> messages, AnswerStart start) {
  try {
    if (start != AnswerStart::kFinalMessage) return chat_template.render(messages, start == AnswerStart::kNewMessage);
    // As transformers does for continue_final_message: a mark shows where the message ends in what the template writes. If the template
    // takes off the white space after the mark, it would have taken off that of the message, too.
    const std::string mark = "END_OF_THE_MESSAGE_TO_CONTINUE";
    std::vector<text::Message> marked(messages.begin(), messages.end());
    marked.back().content += mark + " ";
    auto text = chat_template.render(marked, /*add_generation_prompt=*/false);
    const auto place = text.rfind(mark);
    if (place == std::string::npos) {
      throw ApiError(Reason::kInvalidRequest, "the chat template does not write the last message as it is, so it cannot be continued",
                     "messages");
    }
    const bool keeps_space = text.compare(place + mark.size(), 1, " ") == 0;
    text.resize(place);
    if (!keeps_space) text.resize(text.find_last_not_of(" \t\r\n") + 1);
    return text;
  } catch (const Error& error) {
    throw ApiError(error.kind() == ErrorKind::kInternal ? Reason::kInternal : Reason::kInvalidRequest, error.what(), "messages");
  }
}

ApiError no_chat_template() {
  return ApiError(
      Reason::kNoChatTemplate,
      "the base has no chat template, so messages cannot be turned into a prompt; use /v1/completions, or let the server's operator "
      "set a template",
      "messages");
}

}  // namespace quiver::api
