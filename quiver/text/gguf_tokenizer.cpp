#include "quiver/text/gguf_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/text/chat_template.h"
#include "quiver/text/gguf_pre_names.h"
#include "quiver/text/tokenizer.h"

namespace quiver::text {
namespace {

namespace fs = std::filesystem;
using io::GgufMetadata;
using nlohmann::json;

/// ggml's token types.
enum : std::int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

/// Texts in which the ways to cut differ.
constexpr const char* kProbes[] = {
    "Hello, world! It's 3 o'clock; we'LL see 12 or 123 or 1234567 things, I'm sure.",
    " leading and trailing  spaces   \n\n\n  and\ttabs\t\t \r\n  lines \n",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u1ebf \uac01 \u1112\u1161\u11ab",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 \u3053\u3093\u306b\u3061\u306f \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2026\u2014\u201cquotes\u201d \u00bd \u0663\u0664 \u2167 x\u00b2 \u1d400",
    "if (x != y) { return a[i++] / 2.5e-3; } // HTTPResponse camelCase snake_case $$$ ### ==> ...",
    "''''s ''ll 'S 'd'VE \u017fIX don\u2019t A'B a1b2c3 100,000.00 1\u00b02\u2032",
    "a",
    " a",
    "",
    "\u2581x",
    "\n a"};

/// Whether both tokenizers give the same ids, with and without the special tokens around a text.
bool agree(const Tokenizer& a, const Tokenizer& b) {
  for (const char* probe : kProbes) {
    for (const bool special : {false, true}) {
      if (a.encode(probe, {.add_special_tokens = special}) != b.encode(probe, {.add_special_tokens = special})) return false;
    }
  }
  return true;
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<std::int64_t> types;
};

Vocabulary vocabulary_of(const Tokenizer& tokenizer, const json& description, std::int64_t num_rows) {
  const json& model = description.at("model");
  const bool has_bytes = model.value("byte_fallback", false);
  std::unordered_map<std::string, bool> added;  // spelling to whether it is special
  for (const json& token : description.value("added_tokens", json::array())) {
    added[token.at("content").get<std::string>()] = token.value("special", false);
  }
  const auto unk = model.value("unk_token", json());
  Vocabulary all;
  for (std::int64_t id = 0; id < num_rows; ++id) {
    const auto token = tokenizer.token(static_cast<std::int32_t>(id));
    all.tokens.push_back(token.value_or(format("[PAD{}]", id)));
    const auto& spelling = all.tokens.back();
    const auto found = added.find(spelling);
    const bool is_byte = has_bytes && spelling.size() == 6 && spelling.starts_with("<0x") && spelling.ends_with('>');
    all.types.push_back(!token                  ? kUnused
                        : unk == json(spelling) ? kUnknown
                        : found != added.end()  ? (found->second ? kControl : kUserDefined)
                        : is_byte               ? kByte
                                                : kNormal);
  }
  return all;
}

std::vector<std::string> merges_of(const json& model) {
  std::vector<std::string> merges;
  for (const json& merge : model.at("merges")) {
    merges.push_back(merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return merges;
}

/// SentencePiece's scores from ranks: that of a token is minus the rank of the first merge that makes it. Others are never made.
std::vector<double> scores_of(const Vocabulary& vocabulary, const json& model) {
  std::unordered_map<std::string, double> by_token;
  double rank = 0;
  for (const auto& merge : merges_of(model)) {
    const auto space = merge.find(' ');
    by_token.emplace(merge.substr(0, space) + merge.substr(space + 1), -(rank += 1));
  }
  std::vector<double> scores;
  for (const auto& token : vocabulary.tokens) {
    const auto found = by_token.find(token);
    scores.push_back(found == by_token.end() ? -(rank + 1) : found->second);
  }
  return scores;
}

void add_special_ids(const Tokenizer& tokenizer, GgufMetadata& metadata) {
  const auto set = [&](const char* key, std::optional<std::int32_t> id) {
    if (id) metadata[key] = static_cast<std::int64_t>(*id);
  };
  const auto framed = tokenizer.encode("", {.add_special_tokens = true});
  auto bos = tokenizer.bos_id();
  if (!bos && framed.size() == 1) bos = framed.front();  // a folder need not name it
  set("tokenizer.ggml.bos_token_id", bos);
  set("tokenizer.ggml.eos_token_id", tokenizer.eos_id());
  set("tokenizer.ggml.padding_token_id", tokenizer.pad_id());
  if (tokenizer.eos_ids().size() > 1) set("tokenizer.ggml.eot_token_id", tokenizer.eos_ids()[1]);
  if (tokenizer.eos_ids().size() > 2) set("tokenizer.ggml.eom_token_id", tokenizer.eos_ids()[2]);
  metadata["tokenizer.ggml.add_bos_token"] = !framed.empty() && framed.front() == bos;
  metadata["tokenizer.ggml.add_eos_token"] = !framed.empty() && framed.back() == tokenizer.eos_id() && framed.size() > 1;
}

bool reads_as(const Tokenizer& tokenizer, const GgufMetadata& metadata) {
  const auto bytes = io::gguf_metadata_file(metadata);
  return agree(tokenizer, Tokenizer::from_gguf(io::GgufView::parse(std::as_bytes(std::span(bytes)), "the exported tokenizer")));
}

void add_byte_level(const Tokenizer& tokenizer, const json& model, const std::string& origin, GgufMetadata& metadata) {
  metadata["tokenizer.ggml.model"] = "gpt2";
  metadata["tokenizer.ggml.merges"] = merges_of(model);
  for (const auto name : gguf_pre_names()) {
    metadata["tokenizer.ggml.pre"] = std::string(name);
    if (reads_as(tokenizer, metadata)) return;
  }
  fail(ErrorKind::kUnsupported, "{}: cuts text in a way that no tokenizer.ggml.pre names: no GGUF file is written", origin);
}

void add_scored(const Tokenizer& tokenizer, const Vocabulary& vocabulary, const json& model, const std::string& origin,
                GgufMetadata& metadata) {
  metadata["tokenizer.ggml.model"] = "llama";
  metadata["tokenizer.ggml.pre"] = "default";
  metadata["tokenizer.ggml.scores"] = scores_of(vocabulary, model);
  if (const auto unk = std::ranges::find(vocabulary.types, kUnknown); unk != vocabulary.types.end())
    metadata["tokenizer.ggml.unknown_token_id"] = std::int64_t{unk - vocabulary.types.begin()};
  for (const bool prefix : {true, false}) {
    metadata["tokenizer.ggml.add_space_prefix"] = prefix;
    if (reads_as(tokenizer, metadata)) return;
  }
  fail(ErrorKind::kUnsupported, "{}: marks spaces in a way that GGUF files do not have: no GGUF file is written", origin);
}

}  // namespace

GgufMetadata gguf_tokenizer(const fs::path& folder, const std::string& architecture, std::int64_t num_rows) {
  if (!fs::exists(folder / "tokenizer.json") && fs::exists(folder / kGgufTokenizerFile)) {
    const io::MappedFile file(folder / kGgufTokenizerFile);
    auto given = io::GgufView::parse(file.bytes(), (folder / kGgufTokenizerFile).string()).metadata();
    std::erase_if(given, [](const auto& item) { return !item.first.starts_with("tokenizer."); });
    return given;
  }
  const auto tokenizer = load_tokenizer(folder);
  const auto origin = (folder / "tokenizer.json").string();
  const auto description = io::read_json_file(folder / "tokenizer.json");
  const json& model = io::require_object(description, "model", origin);
  const auto vocabulary = vocabulary_of(tokenizer, description, num_rows);
  GgufMetadata metadata = {{"general.architecture", architecture}};  // one tokenizer depends on it
  metadata["tokenizer.ggml.tokens"] = vocabulary.tokens;
  metadata["tokenizer.ggml.token_type"] = vocabulary.types;
  add_special_ids(tokenizer, metadata);
  if (model.value("byte_fallback", false)) {
    add_scored(tokenizer, vocabulary, model, origin, metadata);
  } else {
    add_byte_level(tokenizer, model, origin, metadata);
  }
  if (const auto chat = load_chat_template(folder, tokenizer)) metadata["tokenizer.chat_template"] = chat->source();
  return metadata;
}

}  // namespace quiver::text
