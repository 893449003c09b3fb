// Keys of what is kept because it is dear to compute: every input of the computation, in one hash.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "quiver/base/hash.h"
#include "quiver/lora/lora.h"
#include "quiver/model/llama.h"
#include "quiver/recipes/observe.h"

namespace quiver::recipes {

/// The SHA-256 of a computation's name and inputs. Each input goes in with its type and length, so that no two lists of inputs hash alike.
/// What a computation is given, and nothing else, belongs into its key: adapters and tensors count by content, never by name.
class ArtifactKey {
 public:
  /// `what` names the computation and its version, and changes when its result does.
  explicit ArtifactKey(std::string_view what);

  /// The weights (by fingerprint), the dtype and the device that computes.
  ArtifactKey& add(const model::Llama& model);
  /// Paths, scalings and factors.
  ArtifactKey& add(const lora::LoraAdapter& adapter);
  /// Dtype, shape and values.
  ArtifactKey& add(const torch::Tensor& tensor);
  ArtifactKey& add(std::span<const Prompt> prompts);
  ArtifactKey& add(std::string_view text);
  /// Numbers, flags and lists of them.
  ArtifactKey& add_value(const nlohmann::json& value);

  /// 64 hexadecimal digits; call once, last.
  std::string hex() { return hash_.hex(); }

 private:
  void begin(std::string_view type, std::size_t size);

  Sha256 hash_;
};

}  // namespace quiver::recipes
