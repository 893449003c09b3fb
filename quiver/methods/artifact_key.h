// Keys of what is kept because it is dear to compute: every input of the computation, in one hash.
#pragma once

#include <concepts>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "quiver/base/hash.h"
#include "quiver/data/tasks.h"
#include "quiver/methods/base_model.h"
#include "quiver/methods/observe.h"
#include "quiver/train/mixture.h"
#include "quiver/train/trainer.h"

namespace quiver::methods {

/// The SHA-256 of a computation's name and inputs. Each input goes in with its type and length, so that no two lists of inputs hash alike.
/// What a computation is given, and nothing else, belongs into its key: adapters and tensors count by content, never by name.
///
/// A struct of inputs has `void add_to(ArtifactKey&) const`. It names all members in a structured binding: a new member does not compile
/// until somebody has decided whether it changes the result.
class ArtifactKey {
 public:
  /// `what` names the computation and its version, and changes when its result does.
  explicit ArtifactKey(std::string_view what);

  /// Weights and configuration by content, the dtype and the device that computes.
  ArtifactKey& add(const model::Model& model);
  /// The model, and how text becomes tokens and tokens text: tokenizer, chat template, system message.
  ArtifactKey& add(const BaseModel& base);
  /// Paths, scalings and factors.
  ArtifactKey& add(const adapters::LoraAdapter& adapter);
  /// An adapter that a training starts from: also its name, which draws the order of examples, and its options.
  ArtifactKey& add_initial(const adapters::LoraAdapter& adapter);
  /// Dtype, shape and values.
  ArtifactKey& add(const torch::Tensor& tensor);
  ArtifactKey& add(std::span<const Prompt> prompts);
  ArtifactKey& add(std::span<const forest::Sequence> sequences);
  ArtifactKey& add(std::span<const data::Example> examples);
  ArtifactKey& add(const Scoring& scoring);
  ArtifactKey& add(const adapters::LoraOptions& options);
  ArtifactKey& add(const train::TrainOptions& options);
  ArtifactKey& add(const train::MixtureOptions& options);
  ArtifactKey& add(std::string_view text);
  template <typename T>
  requires requires(const T& inputs, ArtifactKey& key) { inputs.add_to(key); }
  ArtifactKey& add(const T& inputs) {
    inputs.add_to(*this);
    return *this;
  }
  /// Numbers, flags, texts and lists of them.
  ArtifactKey& add_value(const nlohmann::json& value);
  template <typename... T>
  ArtifactKey& add_values(const T&... values) {
    (add_value(values), ...);
    return *this;
  }

  /// 64 hexadecimal digits; call once, last.
  std::string hex() { return hash_.hex(); }

 private:
  void begin(std::string_view type, std::size_t size);

  Sha256 hash_;
};

}  // namespace quiver::methods
