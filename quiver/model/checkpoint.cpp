// Reading base models: Hugging Face folders and GGUF files.
#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/file.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/model/families.h"
#include "quiver/model/model.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

namespace fs = std::filesystem;

/// Hashes names, shapes, types and a few bytes of every tensor as stored: enough to tell checkpoints apart, cheap
/// enough to do at every start.
class Fingerprint {
 public:
  void add(const std::string& name, std::string_view type, std::span<const std::int64_t> shape, std::span<const std::byte> data) {
    hash_.update(format("{} {}", name, type));
    for (const auto dim : shape) hash_.update(format(" {}", dim));
    constexpr std::size_t kSample = 1024, kSamples = 4;
    if (data.size() <= kSample * kSamples) {
      hash_.update(data);
    } else {
      for (std::size_t i = 0; i < kSamples; ++i) hash_.update(data.subspan((data.size() - kSample) / (kSamples - 1) * i, kSample));
    }
  }
  std::string hex() { return hash_.hex(); }

 private:
  Sha256 hash_;
};

/// Hashes names, types, shapes and every byte of tensors. The order in which tensors are added does not matter. All threads share the work.
class ContentHash {
 public:
  void add(const std::string& name, std::string_view type, std::span<const std::int64_t> shape, std::span<const std::byte> data) {
    constexpr std::size_t kPiece = 256 * 1024;
    std::vector<std::string> pieces((data.size() + kPiece - 1) / kPiece);
    at::parallel_for(0, static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        pieces[i] = xxh3_hex(data.subspan(i * kPiece, std::min(kPiece, data.size() - i * kPiece)));
      }
    });
    Sha256 whole;
    whole.update(format("{} {}", name, type));
    for (const auto dim : shape) whole.update(format(" {}", dim));
    for (const auto& piece : pieces) whole.update("\n" + piece);
    digests_.emplace(name, whole.hex());
  }
  std::string hex() const {
    Sha256 all;
    for (const auto& [name, digest] : digests_) all.update(digest);
    return all.hex();
  }

 private:
  std::map<std::string, std::string> digests_;
};

/// "blk.3.attn_q.weight" -> "layers.3.self_attn.q_proj.weight" in a family's names; empty for tensors that it does not have. One table
/// serves all families, because GGUF names what a description names.
std::string hugging_face_name(const TensorNames& names, const std::string& name) {
  const std::map<std::string_view, const char*> outer = {
      {"token_embd", names.embedding}, {"output_norm", names.final_norm}, {"output", names.head}};
  const std::map<std::string_view, const char*> inner = {{"attn_norm", names.attention_norm},
                                                         {"ffn_norm", names.mlp_norm},
                                                         {"attn_q", names.query},
                                                         {"attn_k", names.key},
                                                         {"attn_v", names.value},
                                                         {"attn_output", names.output},
                                                         {"ffn_gate", names.gate},
                                                         {"ffn_up", names.up},
                                                         {"ffn_down", names.down}};
  const auto dot = name.rfind('.');
  if (dot == std::string::npos) return {};
  const std::string_view stem = std::string_view(name).substr(0, dot), kind = std::string_view(name).substr(dot);
  if (kind != ".weight" && kind != ".bias") return {};
  if (const auto found = outer.find(stem); found != outer.end()) return found->second + std::string(kind);
  constexpr std::string_view kBlock = "blk.";
  const auto layer_end = stem.find('.', kBlock.size());
  if (!stem.starts_with(kBlock) || layer_end == std::string_view::npos) return {};
  const auto found = inner.find(stem.substr(layer_end + 1));
  if (found == inner.end()) return {};
  return format("{}.{}.{}{}", names.blocks, stem.substr(kBlock.size(), layer_end - kBlock.size()), found->second, kind);
}

/// llama.cpp stores the rows of q and k so that rotation pairs are neighbours; Hugging Face so that they are half a
/// head apart. Row (h, i, p) of [H, D/2, 2] belongs at (h, p, i).
torch::Tensor unpermute(const torch::Tensor& weight, std::int64_t heads) {
  const auto rows = weight.size(0), in = weight.size(1);
  return weight.view({heads, rows / heads / 2, 2, in}).transpose(1, 2).reshape({rows, in});
}

/// The heads of a tensor whose rows are stored in pairs; 0 for any other tensor.
std::int64_t paired_heads(const ModelSpec& spec, const std::string& name) {
  if (!family_of(spec).has_paired_gguf_rows) return 0;
  if (name.ends_with(".attn_q.weight")) return spec.block.attention.num_heads;
  return name.ends_with(".attn_k.weight") ? spec.block.attention.num_kv_heads : 0;
}

Model load_gguf(const fs::path& path, tensor::Placement placement, const LoadOptions& options) {
  const io::MappedFile file(path);
  const auto gguf = io::GgufView::parse(file.bytes(), path.string());
  auto spec = spec_from_gguf(gguf);
  if (spec.name.empty()) spec.name = path.stem().string();
  set_context(spec, options.context, path.string());
  Fingerprint fingerprint;
  ContentHash content;
  tensor::TensorMap weights;
  for (const auto& entry : gguf.tensors()) {
    const auto name = hugging_face_name(spec.names, entry.name);
    if (name.empty())
      fail(ErrorKind::kUnsupported, "{}: tensor '{}' has no place in a model of family '{}'", path.string(), entry.name, spec.family);
    fingerprint.add(name, io::gguf_type_name(entry.type), entry.shape, entry.data);
    content.add(name, io::gguf_type_name(entry.type), entry.shape, entry.data);
    auto values = torch::empty(entry.shape, torch::kFloat);
    io::dequantize(entry, tensor::mutable_elements<float>(values, "a weight"));
    const auto heads = paired_heads(spec, entry.name);
    if (heads > 0 && values.dim() == 2 && values.size(0) % (2 * heads) == 0) values = unpermute(values, heads);
    // Kept in the final dtype already: the whole model in float32 would need twice the memory.
    weights.emplace(name, values.dim() == 1 ? values : values.to(placement.dtype));
  }
  set_fusion(spec, weights, options.fusion);
  return Model(std::move(spec), weights, placement, {fingerprint.hex(), content.hex()});
}

std::vector<fs::path> safetensors_files(const fs::path& folder) {
  const auto index_path = folder / "model.safetensors.index.json";
  if (fs::exists(folder / "model.safetensors")) return {folder / "model.safetensors"};
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
  constexpr std::string_view kCached = "models--";
  for (const auto& part : folder) {
    const auto& text = part.native();
    const auto dashes = text.find("--", kCached.size());
    if (text.starts_with(kCached) && dashes != std::string::npos)
      return text.substr(kCached.size(), dashes - kCached.size()) + "/" + text.substr(dashes + 2);
  }
  return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
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
      const auto name = path_of_tensor(spec, entry.name);
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
      const auto values = as_stored(spec, name, tensor::to_tensor(entry));
      weights.emplace(name, values.dim() == 1 ? values : values.to(placement.dtype));
    }
  }
  if (spec.edges.has_positions) {  // a shorter context needs the first of them
    const auto found = weights.find(std::string(spec.names.positions) + ".weight");
    if (found != weights.end() && found->second.dim() == 2 && found->second.size(0) > spec.max_positions) {
      found->second = found->second.narrow(0, 0, spec.max_positions);
    }
  }
  Sha256 all;  // in name order, so that sharding does not matter
  for (const auto& [name, digest] : digests) all.update(digest);
  set_fusion(spec, weights, options.fusion);
  return Model(std::move(spec), weights, placement, {all.hex(), content.hex()});
}

void check_exists(const fs::path& path) {
  if (fs::exists(path)) return;
  fail(ErrorKind::kNotFound,
       "base model '{}' does not exist; give a Hugging Face folder or a .gguf file ('quiver fetch' gets the default one)", path.string());
}

}  // namespace

torch::Tensor as_stored(const ModelSpec& spec, const std::string& name, const torch::Tensor& weight) {
  if (!family_of(spec).has_transposed_weights || weight.dim() != 2 || !name.ends_with(".weight")) return weight;
  const std::string_view blocks = spec.names.blocks;
  return name.starts_with(blocks) ? weight.t().contiguous() : weight;
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

Model load_model(const fs::path& path, tensor::Placement placement, const LoadOptions& options) {
  check_exists(path);
  return fs::is_directory(path) ? load_folder(path, placement, options) : load_gguf(path, placement, options);
}

ModelSpec load_spec(const fs::path& path) {
  check_exists(path);
  if (fs::is_directory(path)) return spec_of_folder(path);
  const io::MappedFile file(path);
  return spec_from_gguf(io::GgufView::parse(file.bytes(), path.string()));
}

}  // namespace quiver::model
