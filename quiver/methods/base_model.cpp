#include "quiver/methods/base_model.h"

#include <cstdlib>
#include <set>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/gguf_model.h"
#include "quiver/io/hub_cache.h"

namespace quiver::methods {

namespace fs = std::filesystem;

namespace {

/// A snapshot of the Hugging Face cache, or the one model in GGUF that it holds instead.
fs::path model_in(const fs::path& snapshot) {
  if (fs::exists(snapshot / "config.json")) return snapshot;
  std::set<fs::path> models;
  for (const auto& entry : fs::directory_iterator(snapshot)) {
    if (entry.path().extension() == ".gguf") models.insert(io::first_gguf_piece(entry.path()));
  }
  if (models.size() <= 1) return models.empty() ? snapshot : *models.begin();
  std::string names;
  for (const auto& model : models) names += (names.empty() ? "" : ", ") + model.filename().string();
  fail(ErrorKind::kUsage, "'{}' holds {} models in GGUF: give one of them as the base: {}", snapshot.string(), models.size(), names);
}

}  // namespace

fs::path base_path_or_default(const std::string& path) {
  if (!path.empty() && !fs::exists(path) && io::is_hub_model(path)) return model_in(io::hub_snapshot(path));
  if (!path.empty()) return io::first_gguf_piece(path);
  const auto cached = default_base_path();
  if (!fs::exists(cached)) {
    fail(ErrorKind::kNotFound, "no `base` is given and the default base model is not at '{}'; run 'quiver fetch'", cached.string());
  }
  return cached;
}

fs::path default_base_path() {
  const std::tuple<const char*, const char*> places[] = {{"QUIVER_CACHE", ""}, {"XDG_CACHE_HOME", "quiver"}, {"HOME", ".cache/quiver"}};
  for (const auto& [variable, below] : places) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0') return fs::path(value) / below / DefaultBase::kFile;
  }
  fail(ErrorKind::kUsage, "none of QUIVER_CACHE, XDG_CACHE_HOME and HOME is set, so there is no place for downloads");
}

BaseModel load_base(const std::string& path, tensor::Placement placement, const model::LoadOptions& options) {
  const auto where = base_path_or_default(path);
  BaseModel base{where, model::load_model(where, placement, options), text::load_tokenizer(where)};
  if (base.lm.fingerprint() == DefaultBase::kFingerprint) base.lm.rename(DefaultBase::kName);
  base.tokenizer = base.tokenizer.with_model_rows(base.lm.spec().vocab_size);
  base.warnings = base.lm.warnings();
  base.warnings.insert(base.warnings.end(), base.tokenizer.warnings().begin(), base.tokenizer.warnings().end());
  return base;
}

adapters::LoraAdapter initial_adapter(const BaseModel& base, const std::string& name, const adapters::LoraOptions& options,
                                      std::uint64_t seed, adapters::LoraInit init) {
  auto of_family = options;
  if (options.target_modules == adapters::LoraOptions().target_modules) of_family.target_modules = model::attention_targets(base.lm.spec());
  auto adapter = adapters::initial_adapter(name, of_family, base.lm.linears(), seed, init);
  mark_base(adapter, base);
  return adapter;
}

void mark_base(adapters::LoraAdapter& adapter, const BaseModel& base) {
  adapter.base_model = base.lm.spec().name;
  adapter.base_fingerprint = base.lm.fingerprint();
  adapter.prompt_format = data::describe(base.format);
}

std::int64_t longest_prompt(const BaseModel& base, std::int64_t max_length, std::int64_t max_new_tokens) {
  const auto context = base.lm.spec().max_positions;
  if (max_new_tokens >= context) {
    fail(ErrorKind::kUsage, "an answer of {} tokens leaves no room for a prompt in the model's context of {}", max_new_tokens, context);
  }
  return std::min(max_length, context - max_new_tokens);
}

data::PromptFormat prompt_format(const fs::path& path, const text::Tokenizer& tokenizer, const FormatChoice& choice) {
  data::PromptFormat format{.system = choice.system, .train_on = choice.train_on};
  if (choice.chat.value_or(true)) {
    try {
      format.chat = text::load_chat_template(path, tokenizer);
    } catch (const Error& error) {
      fail(error.kind(), "{} (the base's chat template; `chat=false` does without it)", error.what());
    }
  }
  if (format.chat) return format;
  if (choice.chat.value_or(false)) {
    fail(ErrorKind::kUsage,
         "`chat=true`: the base '{}' has no chat template (a folder's chat_template.jinja or tokenizer_config.json, a GGUF file's "
         "tokenizer.chat_template); leave `chat` out",
         path.string());
  }
  if (!choice.system.empty())
    fail(ErrorKind::kUsage, "`system` is for conversations: the prompt is bare text {}",
         choice.chat ? "by `chat=false`" : "for a base without a chat template");
  if (choice.train_on == data::TrainOn::kLast) fail(ErrorKind::kUsage, "`train_on=last` is for conversations: the prompt is bare text");
  return format;
}

}  // namespace quiver::methods
