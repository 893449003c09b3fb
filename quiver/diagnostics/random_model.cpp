#include "quiver/diagnostics/random_model.h"

#include <torch/utils.h>

#include <nlohmann/json.hpp>

#include "quiver/io/json.h"
#include "quiver/model/families.h"

namespace quiver::diagnostics {
namespace {

/// Draws tensors of one description.
class Weights {
 public:
  Weights(const model::ModelSpec& spec, torch::Dtype dtype, std::uint64_t seed) : spec_(spec), dtype_(dtype), seed_(seed) {}

  void add_matrix(const std::string& path, std::int64_t out, std::int64_t in) { add(path + ".weight", {out, in}, 0.03); }
  void add_bias(const std::string& path, std::int64_t width) { add(path + ".bias", {width}, 0.1); }
  void add_norm(const std::string& path, std::int64_t width) {
    add(path + ".weight", {width}, 0.1, 1 - spec_.block.norm.offset);
    if (spec_.block.norm.kind == model::NormSpec::Kind::kLayer) add_bias(path, width);
  }
  tensor::TensorMap weights;

 private:
  void add(const std::string& name, torch::IntArrayRef shape, double bound, double shift = 0) {
    RandomStream random(seed_, "random model/" + name);
    weights.emplace(name, (tensor::uniform(shape, bound, random) + shift).to(dtype_));
  }

  const model::ModelSpec& spec_;
  torch::Dtype dtype_;
  std::uint64_t seed_;
};

}  // namespace

model::Model random_model(const std::filesystem::path& config, tensor::Placement placement, std::uint64_t seed) {
  auto spec = model::spec_from_json(io::read_json_file(config), config.string());
  spec.name = config.stem().string();
  Weights random(spec, placement.dtype, seed);
  const auto& names = spec.names;
  random.add_matrix(names.embedding, spec.vocab_size, spec.hidden_size);
  if (spec.edges.has_positions) random.add_matrix(names.positions, spec.max_positions, spec.hidden_size);
  if (!spec.tie_word_embeddings) random.add_matrix(names.head, spec.vocab_size, spec.hidden_size);
  if (spec.edges.has_head_bias) random.add_bias(names.head, spec.vocab_size);
  for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    for (const auto& linear : model::block_linears(spec)) {
      const auto path = model::block_path(spec, layer, linear.name);
      random.add_matrix(path, linear.out, linear.in);
      if (linear.has_bias) random.add_bias(path, linear.out);
    }
    for (const auto& norm : model::block_norms(spec)) random.add_norm(model::block_path(spec, layer, norm.name), norm.width);
  }
  random.add_norm(names.final_norm, spec.hidden_size);
  const auto hash = model::weights_hash(random.weights);
  return model::Model(std::move(spec), std::move(random.weights), placement, {"random", hash});
}

}  // namespace quiver::diagnostics
