// Tiny models of every family as GGUF files in blocks of 4 and 8 bits.
#pragma once

#include <torch/utils.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "quiver/base/random.h"
#include "quiver/model/gguf_export.h"
#include "quiver/model/model.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/golden_cases.h"

namespace quiver::model {

/// The description with widths that blocks of 32 divide.
inline ModelSpec in_whole_blocks(ModelSpec spec) {
  auto& attention = spec.block.attention;
  const bool has_groups = attention.num_kv_heads < attention.num_heads;
  attention.num_heads = 8;
  attention.num_kv_heads = has_groups ? 2 : 8;
  spec.hidden_size = 96;
  spec.block.mlp.intermediate_size = 160;
  return spec;
}

/// A model of this description with random weights.
inline Model random_model(const ModelSpec& spec, torch::Dtype dtype = torch::kFloat) {
  tensor::TensorMap weights;
  std::uint64_t seed = 1;
  const auto add = [&](const std::string& name, torch::IntArrayRef shape, double scale, double shift = 0) {
    weights.emplace(name, (testing::draw(shape, seed++) * scale + shift).to(torch::kFloat));
  };
  const auto& names = spec.names;
  const auto add_norm = [&](const std::string& path, std::int64_t width) {
    add(path + ".weight", {width}, 0.1, 1 - spec.block.norm.offset);
    if (spec.block.norm.kind == NormSpec::Kind::kLayer) add(path + ".bias", {width}, 0.1);
  };
  add(names.embedding + std::string(".weight"), {spec.vocab_size, spec.hidden_size}, 1);
  if (spec.edges.has_positions) add(names.positions + std::string(".weight"), {spec.max_positions, spec.hidden_size}, 0.3);
  if (!spec.tie_word_embeddings) add(names.head + std::string(".weight"), {spec.vocab_size, spec.hidden_size}, 0.2);
  if (spec.edges.has_head_bias) add(names.head + std::string(".bias"), {spec.vocab_size}, 0.2);
  for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    for (const auto& linear : block_linears(spec)) {
      add(block_path(spec, layer, linear.name) + ".weight", {linear.out, linear.in}, 0.2);
      if (linear.has_bias) add(block_path(spec, layer, linear.name) + ".bias", {linear.out}, 0.2);
    }
    for (const auto& norm : block_norms(spec)) add_norm(block_path(spec, layer, norm.name), norm.width);
  }
  add_norm(names.final_norm, spec.hidden_size);
  return Model(spec, std::move(weights), {torch::kCPU, dtype}, {"fingerprint", "content"});
}

/// Random blocks of a type of 4 bits: scales about 0.02, and minima that make the values symmetric.
inline std::vector<std::byte> random_blocks(io::GgufType type, std::span<const std::int64_t> shape, std::uint64_t seed) {
  RandomStream random(seed, "blocks");
  std::vector<std::byte> bytes(static_cast<std::size_t>(io::quantised_bytes(type, shape)));
  for (auto& byte : bytes) byte = static_cast<std::byte>(random.below(256));
  const std::size_t block = type == io::GgufType::kQ4_0 ? 18 : 20;
  for (std::size_t i = 0; i < bytes.size(); i += block) {
    const auto scale = static_cast<std::uint16_t>(0x2500 + random.below(256)),
               minimum = static_cast<std::uint16_t>(0xb000 + random.below(256));
    std::memcpy(&bytes[i], &scale, 2);
    if (type == io::GgufType::kQ4_1) std::memcpy(&bytes[i + 2], &minimum, 2);
  }
  return bytes;
}

/// A GGUF file of a model that random_model made. Its matrices take turns as Q8_0, Q4_0 and Q4_1; all is Q8_0 if `type` says so.
inline void write_in_blocks(const Model& model, const std::filesystem::path& path, bool mixes_types = true) {
  tensor::TensorMap weights;
  const std::string prefix = model.spec().names.prefix;
  for (const auto& [name, weight] : model.weights()) {
    weights.emplace(name.starts_with(model.spec().names.head) ? name : name.substr(prefix.size()), weight);
  }
  auto sources = gguf_tensors(model.spec(), weights, io::GgufType::kQ8_0);
  std::uint64_t number = 0;
  for (auto& source : sources) {
    constexpr std::array kTypes = {io::GgufType::kQ8_0, io::GgufType::kQ4_0, io::GgufType::kQ4_1};
    const auto type = kTypes[++number % 3];
    if (!mixes_types || source.type != io::GgufType::kQ8_0 || type == io::GgufType::kQ8_0) continue;
    source.type = type;
    source.bytes = [type, shape = source.shape, number] { return random_blocks(type, shape, number); };
  }
  io::write_gguf(path, gguf_description(model.spec()), sources);
}

/// A file of a family's golden case in whole blocks, gone with the object.
class QuantizedFile {
 public:
  explicit QuantizedFile(const std::string& family_case, bool mixes_types = true)
      : path_(std::filesystem::path(::testing::TempDir()) / ("quiver-blocks-" + family_case + std::to_string(::getpid()) + ".gguf")) {
    write_in_blocks(random_model(in_whole_blocks(load_spec(testing::kFamilies / family_case))), path_, mixes_types);
  }
  QuantizedFile(const QuantizedFile&) = delete;
  QuantizedFile& operator=(const QuantizedFile&) = delete;
  ~QuantizedFile() { std::filesystem::remove(path_); }

  Model load(Weights weights, Fusion fusion = Fusion::kAsStored) const {
    return load_model(path_, {torch::kCPU, torch::kFloat}, {.fusion = fusion, .base_weights = weights});
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace quiver::model
