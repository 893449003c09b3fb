// A tokenizer from whichever files a model comes with.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/text/tokenizer.h"

namespace quiver::text {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json read_if_there(const fs::path& path) { return fs::exists(path) ? io::read_json_file(path) : json::object(); }

/// "eos_token" of tokenizer_config.json: a spelling, an object with one, or null.
std::optional<std::int32_t> named_token(const json& config, const char* key, const Tokenizer& tokenizer, const fs::path& path) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  const std::string where = path.string() + ": " + key;
  const std::string token = found->is_string() ? found->get<std::string>() : io::require_string(*found, "content", where);
  const auto id = tokenizer.token_id(token);
  if (!id) {
    fail(ErrorKind::kMismatch, "{} is '{}', which the vocabulary of {} ids lacks; do the files belong to one model?", where, token,
         tokenizer.vocab_size());
  }
  return id;
}

/// "eos_token_id" of config.json or generation_config.json: an id, a list of ids, or null.
std::vector<std::int32_t> listed_ids(const json& config, const char* key, const fs::path& path) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return {};
  const json list = found->is_array() ? *found : json::array({*found});
  std::vector<std::int32_t> ids;
  for (const json& id : list) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > kMaxTokenId) {
      fail(ErrorKind::kBadFormat, "{}: {} is {}, neither a token id nor a list of them", path.string(), key,
           io::dump_json(*found, path.string()));
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

void append_new(std::vector<std::int32_t>& ids, std::span<const std::int32_t> more) {
  for (const std::int32_t id : more) {
    if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  }
}

/// Tokens that stand in "added_tokens_decoder" of tokenizer_config.json alone, put among those of tokenizer.json, as transformers does.
void add_configured_tokens(json& description, const json& config, const fs::path& path) {
  const auto listed = config.find("added_tokens_decoder");
  if (listed == config.end() || listed->is_null() || !description.is_object()) return;
  if (!listed->is_object()) fail(ErrorKind::kBadFormat, "{}: added_tokens_decoder is not an object", path.string());
  auto& tokens = description["added_tokens"];
  if (tokens.is_null()) tokens = json::array();
  if (!tokens.is_array()) return;  // from_tokenizer_json says what is wrong
  for (const auto& [id, token] : listed->items()) {
    const auto where = format("{}: added_tokens_decoder: '{}'", path.string(), id);
    const auto content = io::require_string(token, "content", where);
    if (std::ranges::any_of(tokens, [&](const json& known) { return known.is_object() && known.value("content", json()) == content; }))
      continue;
    std::int32_t number = -1;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error != std::errc() || end != id.data() + id.size() || number < 0) fail(ErrorKind::kBadFormat, "{} is no token id", where);
    auto added = token;
    added["id"] = number;
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
      if (!added.contains(flag)) added[flag] = false;
    }
    tokens.push_back(std::move(added));
  }
}

Tokenizer load_gguf(const fs::path& path) {
  const io::MappedFile file(path);
  return Tokenizer::from_gguf(io::GgufView::parse(file.bytes(), path.string()));
}

Tokenizer load_folder(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  if (!fs::exists(path) && fs::exists(folder / kGgufTokenizerFile)) return load_gguf(folder / kGgufTokenizerFile);
  if (!fs::exists(path)) {
    fail(ErrorKind::kNotFound,
         "{}: no tokenizer.json in this folder; Quiver reads the files of fast tokenizers (save_pretrained writes them)", folder.string());
  }
  const fs::path names_path = folder / "tokenizer_config.json";
  const json names = read_if_there(names_path);
  if (!names.is_object()) fail(ErrorKind::kBadFormat, "{}: not a JSON object", names_path.string());
  auto description = io::read_json_file(path);
  add_configured_tokens(description, names, names_path);
  const Tokenizer tokenizer = Tokenizer::from_tokenizer_json(description, path.string());
  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> pad;
  std::vector<std::int32_t> eos;
  bos = named_token(names, "bos_token", tokenizer, names_path);
  pad = named_token(names, "pad_token", tokenizer, names_path);
  if (const auto id = named_token(names, "eos_token", tokenizer, names_path)) eos.push_back(*id);
  for (const char* name : {"generation_config.json", "config.json"}) {
    const fs::path config_path = folder / name;
    const json config = read_if_there(config_path);
    if (!config.is_object()) fail(ErrorKind::kBadFormat, "{}: not a JSON object", config_path.string());
    append_new(eos, listed_ids(config, "eos_token_id", config_path));
    const auto bos_ids = listed_ids(config, "bos_token_id", config_path);
    const auto pad_ids = listed_ids(config, "pad_token_id", config_path);
    if (!bos && !bos_ids.empty()) bos = bos_ids.front();
    if (!pad && !pad_ids.empty()) pad = pad_ids.front();
  }
  return tokenizer.with_special_ids(bos, std::move(eos), pad);
}

}  // namespace

Tokenizer load_tokenizer(const fs::path& path) {
  if (fs::is_directory(path)) return load_folder(path);
  if (!fs::exists(path)) fail(ErrorKind::kNotFound, "{}: no such file or folder", path.string());
  if (path.extension() == ".gguf") return load_gguf(path);
  if (path.extension() == ".json") return Tokenizer::from_tokenizer_json(io::read_json_file(path), path.string());
  fail(ErrorKind::kUnsupported, "{}: Quiver reads tokenizers from a folder with tokenizer.json, a tokenizer.json, or a .gguf file",
       path.string());
}

}  // namespace quiver::text
