#include "quiver/recipes/artifact_key.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::recipes {

ArtifactKey::ArtifactKey(std::string_view what) { add(what); }

void ArtifactKey::begin(std::string_view type, std::size_t size) { hash_.update(format("{} {}\n", type, size)); }

ArtifactKey& ArtifactKey::add(const model::Llama& model) {
  begin("model", 3);
  add(model.fingerprint());
  add(c10::toString(model.placement().dtype));
  return add(c10::DeviceTypeName(model.placement().device.type()));
}

ArtifactKey& ArtifactKey::add(const lora::LoraAdapter& adapter) {
  begin("adapter", adapter.pairs.size());
  for (const auto& [path, pair] : adapter.pairs) {
    add(path);
    add_value(pair.scaling());
    const auto tensors = pair.tensors();
    begin("tensors", tensors.size());
    for (const auto& tensor : tensors) add(tensor);
  }
  return *this;
}

ArtifactKey& ArtifactKey::add(const torch::Tensor& tensor) {
  const auto values = tensor.to(torch::kCPU).contiguous();
  begin("tensor", values.sizes().size());
  add(c10::toString(values.scalar_type()));
  for (const auto size : values.sizes()) add_value(size);
  hash_.update(tensor::raw_bytes(values, "a tensor of a key"));
  return *this;
}

ArtifactKey& ArtifactKey::add(std::span<const Prompt> prompts) {
  begin("prompts", prompts.size());
  for (const auto& prompt : prompts) {
    begin("prompt", prompt.size());
    hash_.update(std::as_bytes(std::span(prompt)));
  }
  return *this;
}

ArtifactKey& ArtifactKey::add(std::string_view text) {
  begin("text", text.size());
  hash_.update(text);
  return *this;
}

ArtifactKey& ArtifactKey::add_value(const nlohmann::json& value) {
  const auto text = value.dump();
  begin("value", text.size());
  hash_.update(text);
  return *this;
}

}  // namespace quiver::recipes
