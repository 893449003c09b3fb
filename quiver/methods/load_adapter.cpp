#include "quiver/methods/load_adapter.h"

#include <torch/utils.h>

#include <algorithm>
#include <set>

#include "quiver/adapters/gguf_lora.h"
#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/methods/adapter_form.h"
#include "quiver/model/checkpoint.h"
#include "quiver/model/families.h"
#include "quiver/model/gguf_export.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::methods {
namespace {

namespace fs = std::filesystem;

torch::Tensor values_of(const io::GgufTensor& tensor) {
  auto values = torch::empty(tensor.shape, torch::kFloat);
  io::dequantize(tensor, tensor::mutable_elements<float>(values, "a LoRA factor"));
  return values;
}

}  // namespace

bool is_gguf_file(const fs::path& path) {
  std::error_code error;
  return path.extension() == ".gguf" && fs::is_regular_file(path, error);
}

adapters::LoraAdapter load_gguf_lora(const model::ModelSpec& spec, const fs::path& path) {
  const io::MappedFile file(path);
  const auto gguf = io::GgufView::parse(file.bytes(), path.string());
  auto lora = adapters::parse_gguf_lora(gguf);
  const auto architecture = model::gguf_architecture(spec);
  if (lora.architecture != architecture) {
    fail(ErrorKind::kMismatch, "{}: an adapter of architecture '{}'; the base is '{}'", path.string(), lora.architecture, architecture);
  }
  adapters::LoraAdapter adapter;
  adapter.name = path.stem().string();
  adapter.options.rank = 1;
  std::set<std::string> targets;
  for (const auto& slot : model::gguf_slots(model::gguf_form(spec))) {
    const auto found = lora.pairs.find(slot.gguf);
    if (found == lora.pairs.end()) continue;
    const auto& pair = found->second;
    const bool is_embedding = slot.gguf == adapters::kGgufEmbedding;
    const auto a = values_of(*pair.lora_a), b = model::from_gguf_rows(slot, values_of(*pair.lora_b), path.string());
    for (const auto* tensor : {&a, &b}) {
      if (tensor::all_finite(*tensor)) continue;
      fail(ErrorKind::kBadFormat, "{}: a factor of '{}' holds numbers that are not finite", path.string(), slot.gguf);
    }
    const auto alpha = lora.alpha == 0 ? static_cast<double>(pair.rank()) : lora.alpha;
    const auto name = slot.name == spec.names.head ? std::string("lm_head") : slot.name;
    adapter.pairs.emplace(name, adapters::LoraPair(is_embedding ? a.t().contiguous() : a, b, alpha));
    adapter.options.rank = std::max(adapter.options.rank, pair.rank());
    adapter.options.alpha = alpha;
    targets.insert(name.substr(name.rfind('.') + 1));
    lora.pairs.erase(found);
  }
  if (!lora.pairs.empty()) {
    fail(ErrorKind::kMismatch, "{}: {} LoRAs are of weights that the base does not have, '{}' among them", path.string(), lora.pairs.size(),
         lora.pairs.begin()->first);
  }
  adapter.options.target_modules.assign(targets.begin(), targets.end());
  return adapter;
}

adapters::LoraAdapter load_adapter(const BaseModel& base, const fs::path& path) {
  // The names of a GGUF file are those of the stored form.
  auto adapter = is_gguf_file(path) ? load_gguf_lora(model::load_spec(base.path), path) : adapters::load_peft(path);
  return in_form_of(base.lm.spec(), std::move(adapter));
}

}  // namespace quiver::methods
