#include "quiver/text/chat_template.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::error_of;

std::string refusal(const char* messages) {
  return error_of([&] { check_turns(parse_messages(json::parse(messages), "t.jsonl:7"), "t.jsonl:7"); });
}

TEST(ParseMessages, ReadsStringsAndTextParts) {
  const auto messages = parse_messages(
      json::parse(
          R"([{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":null}])"),
      "w");
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].content, "a\nb");
}

TEST(ParseMessages, NamesPlaceAndMemberOfWhatIsWrong) {
  EXPECT_EQ(refusal("[]"), "bad format: t.jsonl:7: the list of messages is empty");
  EXPECT_EQ(refusal("{}"), "bad format: t.jsonl:7: messages are not a list of {\"role\", \"content\"}");
  EXPECT_EQ(refusal(R"([{"role":"user"}])"), "bad format: t.jsonl:7: messages[0]: the message has no 'content'");
  EXPECT_EQ(refusal(R"([{"role":"owner","content":"a"}])"),
            "bad format: t.jsonl:7: messages[0]: role 'owner' is not one of system, user, assistant");
  EXPECT_EQ(refusal(R"([{"role":"tool","content":"a"}])"),
            "unsupported: t.jsonl:7: messages[0]: role 'tool' is not one of system, user, assistant");
  EXPECT_EQ(refusal(R"([{"role":"user","content":"a","tool_calls":[1]}])"),
            "unsupported: t.jsonl:7: messages[0]: the message has a member 'tool_calls'; Quiver reads 'role' and 'content' alone");
  EXPECT_EQ(refusal(R"([{"role":"user","content":[{"type":"image_url"}]}])"),
            "unsupported: t.jsonl:7: messages[0]: a part of 'content' is of type 'image_url'; Quiver reads text alone");
}

TEST(CheckTurns, RefusesRolesOutOfOrder) {
  const std::string expected = "; expected a system message at most once and first, then user and assistant in turn";
  EXPECT_EQ(refusal(R"([{"role":"user","content":"a"},{"role":"user","content":"a"}])"),
            "bad format: t.jsonl:7: messages[1] is of role 'user' after 'user'" + expected);
  EXPECT_EQ(refusal(R"([{"role":"assistant","content":"a"}])"),
            "bad format: t.jsonl:7: messages[0] is of role 'assistant' at the start" + expected);
  EXPECT_EQ(refusal(R"([{"role":"user","content":"a"},{"role":"system","content":"a"}])"),
            "bad format: t.jsonl:7: messages[1] is of role 'system' after 'user'" + expected);
  EXPECT_EQ(refusal(R"([{"role":"system","content":"a"}])"), "bad format: t.jsonl:7: the conversation has no message of role 'user'");
  EXPECT_EQ(
      refusal(
          R"([{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"a"},{"role":"user","content":"a"}])"),
      "no error");
}

/// A copy of the golden chat base that goes away.
class ChatFolder {
 public:
  ChatFolder() : path_(fs::temp_directory_path() / ("quiver-chat-test-" + std::to_string(::getpid()))) {
    fs::create_directories(path_);
    fs::copy_file("tests/golden/chat/tokenizer.json", path_ / "tokenizer.json", fs::copy_options::overwrite_existing);
  }
  ~ChatFolder() { fs::remove_all(path_); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }
  std::optional<ChatTemplate> load() const { return load_chat_template(path_, load_tokenizer(path_)); }
  std::string rendered() const { return load().value().render(std::vector<Message>{{"user", "a"}}, false); }

 private:
  fs::path path_;
};

TEST(LoadChatTemplate, PrefersTheFileToTheConfigurationAndItsDefault) {
  const ChatFolder folder;
  EXPECT_FALSE(folder.load());
  folder.write("tokenizer_config.json", R"({"eos_token":"<|im_end|>","chat_template":"one {{ eos_token }}"})");
  EXPECT_EQ(folder.rendered(), "one <|im_end|>");
  folder.write("tokenizer_config.json",
               R"({"chat_template":[{"name":"tool_use","template":"two"},{"name":"default","template":"three"}]})");
  EXPECT_EQ(folder.rendered(), "three");
  folder.write("chat_template.jinja", "four {{ messages[0].content }}");
  EXPECT_EQ(folder.rendered(), "four a");
}

TEST(LoadChatTemplate, RefusesWhatIsNone) {
  const ChatFolder folder;
  folder.write("tokenizer_config.json", R"({"chat_template":7})");
  EXPECT_NE(error_of([&] { folder.load(); }).find("chat_template is neither a string nor a list of named templates"), std::string::npos);
  folder.write("tokenizer_config.json", R"({"chat_template":[{"name":"rag","template":"x"}]})");
  EXPECT_NE(error_of([&] { folder.load(); }).find("lists 1 templates and none is named 'default'"), std::string::npos);
  folder.write("chat_template.jinja", std::string((1 << 20) + 1, 'a'));
  EXPECT_TRUE(error_of([&] { folder.load(); }).starts_with("bad format: ")) << error_of([&] { folder.load(); });
}

}  // namespace
}  // namespace quiver::text
