// Reading base models: Hugging Face folders. GGUF files are read by checkpoint_gguf.cpp.
#include <torch/utils.h>

#include <nlohmann/json.hpp>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/file.h"
#include "quiver/io/gguf_model.h"
#include "quiver/io/hub_cache.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/model/checkpoint.h"
#include "quiver/model/families.h"
#include "quiver/model/model.h"
#include "quiver/model/weight_identity.h"
#include "quiver/tensor/mapped.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> safetensors_files(const fs::path& folder) {
  const auto index_path = folder / "model.safetensors.index.json";
  if (fs::exists(folder / "model.safetensors")) return {folder / "model.safetensors"};
  for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (fs::exists(index_path) || !fs::exists(folder / pickle)) continue;
    fail(ErrorKind::kUnsupported,
         "'{}' holds its weights as {}, a Python pickle, which is not read (it may run any code). This command converts it: python -c "
         "\"from transformers import AutoModelForCausalLM as A; A.from_pretrained('{}', dtype='auto').save_pretrained('{}')\"",
         folder.string(), pickle, folder.string(), folder.string());
  }
  if (!fs::exists(index_path)) {
    fail(ErrorKind::kNotFound, "'{}' holds neither model.safetensors nor model.safetensors.index.json", folder.string());
  }
  const auto index = io::read_json_file(index_path);
  std::set<std::string> names;
  for (const auto& [tensor, file] : io::require_object(index, "weight_map", index_path.string()).items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos) {
      fail(ErrorKind::kBadFormat, "{}: the file of tensor '{}' is not a plain file name", index_path.string(), tensor);
    }
    names.insert(file.get<std::string>());
  }
  std::vector<fs::path> files;
  for (const auto& name : names) files.push_back(folder / name);
  return files;
}

/// What a folder calls its model: its own name, or in a Hugging Face cache, models--ORG--NAME/snapshots/HASH, "ORG/NAME".
std::string name_of(const fs::path& folder) {
  for (const auto& part : folder) {
    if (const auto name = io::hub_model_name(part.native())) return *name;
  }
  return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
}

/// The name that a tensor of a checkpoint of text and images has in one of the text alone; empty for tensors of images.
std::string name_in_text(const std::string& name) {
  for (const std::string_view images : {"vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."}) {
    if (name.starts_with(images)) return {};
  }
  for (const std::string_view text : {"language_model.model.", "model.language_model."}) {
    if (name.starts_with(text)) return "model." + name.substr(text.size());
  }
  constexpr std::string_view kOuter = "language_model.";  // of the head
  return name.starts_with(kOuter) ? name.substr(kOuter.size()) : name;
}

/// A tensor's name in a file as TensorNames has it. Some files leave out the name of the decoder that all other tensors begin with.
std::string path_of_tensor(const ModelSpec& spec, const std::string& name) {
  const std::string_view prefix = spec.names.prefix, blocks = spec.names.blocks;
  if (!prefix.empty()) return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
  const auto decoder = blocks.substr(0, blocks.find('.') + 1);  // "transformer."
  return name.starts_with(decoder) || name.starts_with(spec.names.head) ? name : std::string(decoder) + name;
}

/// The description in the folder's config.json.
ModelSpec spec_of_folder(const fs::path& folder) {
  const auto config_path = folder / "config.json";
  if (!fs::exists(config_path)) {
    fail(ErrorKind::kNotFound, "'{}' holds no config.json; expected a Hugging Face model folder or a .gguf file", folder.string());
  }
  auto spec = spec_from_json(io::read_json_file(config_path), config_path.string());
  spec.name = name_of(fs::absolute(folder).lexically_normal());
  return spec;
}

Model load_folder(const fs::path& folder, tensor::Placement placement, const LoadOptions& options) {
  auto spec = spec_of_folder(folder);
  set_context(spec, options.context, (folder / "config.json").string());
  std::map<std::string, std::string> origin;  // for duplicates between shards
  tensor::TensorMap weights;
  std::map<std::string, std::string> digests;
  ContentHash content;
  for (const auto& path : safetensors_files(folder)) {
    const io::MappedFile file(path);
    const auto view = io::SafetensorsView::parse(file.bytes(), path.string());
    for (const auto& entry : view.entries()) {
      const auto text_name = spec.family == "gemma3_text" ? name_in_text(entry.name) : entry.name;
      if (text_name.empty()) continue;
      const auto name = path_of_tensor(spec, text_name);
      if (!origin.emplace(name, path.string()).second) {
        fail(ErrorKind::kBadFormat, "tensor '{}' is in both '{}' and '{}'", entry.name, origin[name], path.string());
      }
      const auto type = tensor::to_torch_dtype(entry.dtype);
      if (!c10::isFloatingType(type)) {
        fail(ErrorKind::kUnsupported, "{}: tensor '{}' is {}; expected floating-point weights", path.string(), entry.name,
             c10::toString(type));
      }
      Fingerprint one;
      one.add(name, c10::toString(type), entry.shape, entry.data);
      digests.emplace(name, one.hex());
      content.add(name, c10::toString(type), entry.shape, entry.data);
      file.release(entry.data);
      weights.emplace(name, as_stored(spec, name, tensor::mapped_tensor(entry, file)));
    }
  }
  limit_positions(spec, weights);
  Sha256 all;  // in name order, so that sharding does not matter
  for (const auto& [name, digest] : digests) all.update(digest);
  set_fusion(spec, weights, options.fusion);
  return Model(std::move(spec), std::move(weights), placement, {all.hex(), content.hex()});
}

void check_exists(const fs::path& path) {
  if (fs::exists(path)) return;
  fail(ErrorKind::kNotFound,
       "base model '{}' does not exist; give a Hugging Face folder or a .gguf file ('quiver fetch' gets the default one)", path.string());
}

}  // namespace

void limit_positions(const ModelSpec& spec, tensor::TensorMap& weights) {
  if (!spec.edges.has_positions) return;
  const auto found = weights.find(std::string(spec.names.positions) + ".weight");
  if (found != weights.end() && found->second.dim() == 2 && found->second.size(0) > spec.max_positions) {
    found->second = found->second.narrow(0, 0, spec.max_positions);
  }
}

torch::Tensor as_stored(const ModelSpec& spec, const std::string& name, const torch::Tensor& weight) {
  if (!family_of(spec).has_transposed_weights || weight.dim() != 2 || !name.ends_with(".weight")) return weight;
  const std::string_view blocks = spec.names.blocks;
  return name.starts_with(blocks) ? weight.t() : weight;
}

std::string weights_hash(const tensor::TensorMap& weights) {
  ContentHash content;
  for (const auto& [name, weight] : weights) {
    const auto values = weight.to(torch::kCPU).contiguous();
    const auto shape = values.sizes().vec();
    content.add(name, c10::toString(values.scalar_type()), shape, tensor::raw_bytes(values, name.c_str()));
  }
  return content.hex();
}

void refuse_quantized(const fs::path& path) {
  fail(ErrorKind::kUsage,
       "`base_weights=quantized`: '{}' holds no linear map in blocks of Q8_0, Q4_0 or Q4_1 (a GGUF file of such a type does)",
       path.string());
}

Model load_model(const fs::path& path, tensor::Placement placement, const LoadOptions& options) {
  check_exists(path);
  if (options.base_weights == Weights::kQuantized) {
    if (!placement.device.is_cpu() || placement.dtype != torch::kFloat) {
      fail(ErrorKind::kUsage, "`base_weights=quantized` computes in float32 on the CPU; `device` and `dtype` ask for {} on {}",
           c10::toString(placement.dtype), placement.device.str());
    }
    if (fs::is_directory(path)) refuse_quantized(path);
  }
  return fs::is_directory(path) ? load_folder(path, placement, options) : load_gguf(path, placement, options);
}

ModelSpec load_spec(const fs::path& path) {
  check_exists(path);
  if (fs::is_directory(path)) return spec_of_folder(path);
  return spec_from_gguf(io::GgufModel(path).view());
}

}  // namespace quiver::model
