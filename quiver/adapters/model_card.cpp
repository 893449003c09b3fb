#include "quiver/adapters/model_card.h"

#include <nlohmann/json.hpp>
#include <set>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::adapters {
namespace {

/// A JSON string is a YAML string too, and needs no thought about what must be quoted.
std::string yaml_string(const std::string& text) { return io::dump_json(text, "a name in a model card"); }

std::string list_of(const char* key, const std::vector<std::string>& items) {
  std::string text = items.empty() ? "" : format("{}:\n", key);
  for (const auto& item : items) text += format("- {}\n", item);
  return text;
}

/// The results that a hub shows: one entry for each metric, on what the adapter was trained on.
std::string model_index(const std::string& name, const CardFacts& facts) {
  if (facts.metrics.empty()) return "";
  std::string datasets;
  for (const auto& dataset : facts.datasets) datasets += (datasets.empty() ? "" : ", ") + dataset;
  auto text = format(
      "model-index:\n- name: {}\n  results:\n  - task:\n      type: text-generation\n    dataset:\n      name: {}\n      type: {}\n"
      "    metrics:\n",
      yaml_string(name), yaml_string(datasets), yaml_string(datasets));
  for (const auto& [metric, value] : facts.metrics) text += format("    - type: {}\n      value: {}\n", metric, value);
  return text;
}

std::string front_matter(const std::string& base_model, const char* library, const std::vector<std::string>& tags, const std::string& name,
                         const CardFacts& facts) {
  std::string text = "---\n";
  if (!base_model.empty()) text += format("base_model: {}\n", yaml_string(base_model));
  std::vector<std::string> datasets, metrics;
  for (const auto& dataset : facts.datasets) datasets.push_back(yaml_string(dataset));
  for (const auto& [metric, value] : facts.metrics) metrics.push_back(metric);
  text += format("library_name: {}\n", library) + list_of("tags", tags) + list_of("datasets", datasets) + list_of("metrics", metrics);
  return text + model_index(name, facts) + "---\n\n";
}

std::string description(const LoraAdapter& adapter) {
  std::set<std::string> names;
  for (const auto& [path, pair] : adapter.pairs) names.insert(path.substr(path.rfind('.') + 1));
  std::string targets;
  for (const auto& name : names) targets += (targets.empty() ? "" : ", ") + name;
  const auto& first = adapter.pairs.begin()->second;
  return format("{} of rank {} and alpha {} on {}", first.magnitude().defined() ? "DoRA" : "LoRA", first.rank(), first.alpha(), targets);
}

std::string prompt_line(const LoraAdapter& adapter) {
  return adapter.prompt_format.empty() ? "" : format("Format of the prompts it was trained on: {}.\n\n", adapter.prompt_format);
}

}  // namespace

std::string adapter_card(const LoraAdapter& adapter, const CardFacts& facts) {
  auto text = front_matter(adapter.base_model, "peft", {"lora"}, adapter.name, facts);
  text += format("# LoRA adapter{}\n\n", adapter.base_model.empty() ? std::string() : format(" for {}", adapter.base_model));
  text += format("A {}, written by Quiver.\n\n", description(adapter)) + prompt_line(adapter);
  return text + "```python\nfrom peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base_model, folder)\n```\n";
}

std::string merged_card(const std::string& base_model, const LoraAdapter& adapter, const CardFacts& facts) {
  auto text = front_matter(base_model, "transformers", {"merge", "lora"}, adapter.name, facts);
  text += format("# {}{}\n\n", base_model.empty() ? "Model" : base_model, adapter.name.empty() ? "" : " with " + adapter.name);
  text += format("The base's weights with a {} added, written by Quiver.\n\n", description(adapter)) + prompt_line(adapter);
  return text + "```python\nfrom transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained(folder)\n```\n";
}

}  // namespace quiver::adapters
