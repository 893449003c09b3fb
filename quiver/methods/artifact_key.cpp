#include "quiver/methods/artifact_key.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::methods {
ArtifactKey::ArtifactKey(std::string_view what) { add(what); }

void ArtifactKey::begin(std::string_view type, std::size_t size) { hash_.update(format("{} {}\n", type, size)); }

ArtifactKey& ArtifactKey::add(const model::Model& model) {
  begin("model", 3);
  add(model.content_hash());
  add(c10::toString(model.placement().dtype));
  return add(c10::DeviceTypeName(model.placement().device.type()));
}

ArtifactKey& ArtifactKey::add(const BaseModel& base) {
  const auto& [path, lm, tokenizer, format, warnings] = base;  // the path names what the others are read from
  const auto& [chat, system, train_on] = format;
  begin("base", 4);
  add(lm).add(tokenizer.sha256());
  return add_values(chat ? nlohmann::json(chat->sha256()) : nlohmann::json(), system, train_on);
}

ArtifactKey& ArtifactKey::add(const adapters::LoraAdapter& adapter) {
  for (const auto& [name, whole] : adapter.whole) add("whole weight").add(name).add(whole.value).add_value(whole.is_of_tied_head);
  for (const auto& [path, rows] : adapter.tokens) add("rows of tokens").add(path).add_values(rows.tokens).add(rows.rows);
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

ArtifactKey& ArtifactKey::add_initial(const adapters::LoraAdapter& adapter) {
  // The name of the base and the file that an adapter came from leave no trace in what is trained; the fingerprint is of the key's model.
  const auto& [name, options, base_model, base_fingerprint, pairs, peft_config, prompt_format, whole, tokens] = adapter;
  begin("initial adapter", 4);
  return add(name).add(prompt_format).add(options).add(adapter);
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

ArtifactKey& ArtifactKey::add(std::span<const forest::Sequence> sequences) {
  begin("sequences", sequences.size());
  for (const auto& [tokens, num_targets, group, gaps, name] : sequences) {  // the name is for messages of errors
    begin("sequence", tokens.size());
    hash_.update(std::as_bytes(std::span(tokens)));
    add_values(num_targets, group);
    begin("gaps", gaps.size());
    for (const auto& [first, second] : gaps) add_values(first, second);
  }
  return *this;
}

ArtifactKey& ArtifactKey::add(std::span<const data::Example> examples) {
  begin("examples", examples.size());
  for (const auto& [id, source, targets, messages, where] : examples) {  // `where` is for messages of errors
    add(id).add(source).add_value(targets);
    begin("messages", messages.size());
    for (const auto& [role, content] : messages) add(role).add(content);
  }
  return *this;
}

ArtifactKey& ArtifactKey::add(const Scoring& scoring) {
  const auto& [vectors, rule] = scoring;
  const auto& [input, is_signed] = rule;
  begin("scoring", vectors.size());
  for (const auto& [path, of_adapters] : vectors) add(path).add(of_adapters);
  return add_values(input, is_signed);
}

ArtifactKey& ArtifactKey::add(const adapters::LoraOptions& options) {
  const auto& [rank, alpha, dropout, use_rslora, use_dora, target_modules] = options;
  begin("LoRA options", 6);
  return add_values(rank, alpha, dropout, use_rslora, use_dora, target_modules);
}

ArtifactKey& ArtifactKey::add(const train::TrainOptions& options) {
  // Activations that are computed again are the same bits, and a limit of memory ends a training or changes nothing.
  const auto& [optimizer, epochs, batch_size, seed, loss_mean, share_prefixes, micro_batch_tokens, checkpoint_activations, validate_every,
               patience, memory_limit] = options;
  const auto& [rate, schedule, warmup_fraction, lora_plus_ratio, beta1, beta2, epsilon, weight_decay, max_grad_norm] = optimizer;
  begin("train options", 17);
  add_values(rate, schedule, warmup_fraction, lora_plus_ratio, beta1, beta2, epsilon, weight_decay, max_grad_norm);
  return add_values(epochs, batch_size, seed, loss_mean, share_prefixes, micro_batch_tokens, validate_every, patience);
}

ArtifactKey& ArtifactKey::add(const train::MixtureOptions& options) {
  const auto& [shape, train_skills, logit_rate_ratio, initial_logit, initial_spread, seed, sample_weights] = options;
  const auto& [rule, unit, num_heads] = shape;
  begin("mixture options", 9);
  return add_values(rule, unit, num_heads, train_skills, logit_rate_ratio, initial_logit, initial_spread, seed, sample_weights);
}

ArtifactKey& ArtifactKey::add(std::string_view text) {
  begin("text", text.size());
  hash_.update(text);
  return *this;
}

ArtifactKey& ArtifactKey::add_value(const nlohmann::json& value) {
  const auto bytes = nlohmann::json::to_cbor(value);  // exact, whatever the numbers and bytes of texts
  begin("value", bytes.size());
  hash_.update(std::as_bytes(std::span(bytes)));
  return *this;
}

}  // namespace quiver::methods
