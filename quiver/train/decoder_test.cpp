// The pass that training runs against its definition, autograd through plain operations (testing/reference_decoder.h).
#include "quiver/model/decoder.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/backend/row_parts.h"
#include "quiver/testing/draw.h"
#include "quiver/train/full_weights.h"
#include "quiver/train/test_support.h"
#include "quiver/train/trainer.h"

namespace quiver::train {
namespace {

/// Several threads whatever the machine has, so that batches are divided.
class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_;
};

forest::ForestBatch batch_of(int trees) {
  std::vector<forest::Sequence> sequences;
  for (int t = 0; t < trees; ++t) {
    for (auto& sequence : nested_sequences(4, static_cast<std::uint64_t>(t))) sequences.push_back(std::move(sequence));
  }
  return forest::build_batch(sequences, {.min_shared_tokens = 1});
}

struct Result {
  double loss = 0;
  torch::Tensor gradient;
};

/// A dropout mask for every other path if asked for, [T, d_in].
torch::Tensor mask_of(const model::Model& base, const std::string& path, std::uint64_t number, std::int64_t num_rows, bool with_masks) {
  if (!with_masks || number % 2 == 0) return {};
  auto generator = at::detail::createCPUGenerator(number);
  return torch::empty({num_rows, base.linears().at(path).in_features()}).bernoulli_(0.5, generator).mul_(2).to(base.placement().dtype);
}

/// Loss and gradient of an adapter, as training computes them.
Result run(const model::Model& base, const adapters::LoraAdapter& adapter, const forest::ForestBatch& batch, bool with_masks) {
  FlatParameters parameters(adapter, torch::kCPU, tensor::compute_dtype(base.placement().dtype));
  nn::TrainedUpdates updates;
  std::uint64_t number = 0;
  for (const auto& [path, pair] : parameters.adapter().pairs) {
    const auto update = std::make_shared<adapters::LoraUpdate>(base.linears().at(path), pair);
    update->set_dropout_mask(mask_of(base, path, ++number, batch.forest.num_rows(), with_masks));
    updates.emplace(path, nn::TrainedUpdate{update, parameters.sinks().at(path)});
  }
  const model::TrainedModel adapted(base, updates);
  const double loss = model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
  return {loss, parameters.gradient()};
}

/// The same by the definition.
Result run_reference(const model::Model& base, const adapters::LoraAdapter& adapter, const forest::ForestBatch& batch, bool with_masks) {
  FlatParameters parameters(adapter, torch::kCPU, torch::kDouble);
  const auto leaf = parameters.values().clone().requires_grad_();
  testing::LinearDefinitions definitions;
  std::uint64_t number = 0;
  for (const auto& [path, pair] : on_flat(parameters.adapter(), leaf).pairs) {
    definitions.emplace(path, testing::lora_definition(pair, mask_of(base, path, ++number, batch.forest.num_rows(), with_masks)));
  }
  const auto loss = testing::reference_loss(base, batch.forest, loss_targets(batch, LossMean::kExamples), definitions);
  loss.backward();
  return {loss.item<double>(), leaf.grad()};
}

TEST(Decoder, EqualsItsDefinition) {
  const std::vector<std::vector<std::string>> targets = {{"all-linear"},
                                                         {"q_proj", "k_proj", "v_proj", "o_proj"},
                                                         {"v_proj"},
                                                         {"layers.1.mlp.down_proj"},
                                                         {"layers.1.self_attn.k_proj"},
                                                         {"layers.0.self_attn.o_proj"}};
  for (const int threads : {1, 3}) {
    const Threads guard(threads);
    for (const auto& [dtype, tolerance] :
         {std::pair(torch::kDouble, 1e-9), std::pair(torch::kFloat, 1e-4), std::pair(torch::kBFloat16, 6e-2)}) {
      const auto base = tiny(dtype);
      for (const int trees : {1, 6}) {
        const auto batch = batch_of(trees);
        if (threads > 1 && trees > 1) {
          ASSERT_GT(backend::RowParts(batch.forest.num_rows()).size(), 1) << "the batch is not divided";
        }
        for (const auto& modules : targets) {
          for (const bool with_masks : {false, true}) {
            const auto adapter = random_adapter(base, 7, modules);
            const auto expected = run_reference(base, adapter, batch, with_masks), actual = run(base, adapter, batch, with_masks);
            const auto where = ::testing::Message() << modules[0] << ", " << dtype << ", " << trees << " trees, masks " << with_masks;
            EXPECT_NEAR(actual.loss, expected.loss, tolerance * std::abs(expected.loss)) << where;
            ASSERT_GT(expected.gradient.norm().item<double>(), 0) << where;
            EXPECT_LE((actual.gradient - expected.gradient).norm().item<double>(), tolerance * expected.gradient.norm().item<double>())
                << where;
          }
        }
      }
    }
  }
}

TEST(Decoder, GivesTheHiddenStatesOfTheWantedRows) {
  const torch::NoGradGuard no_grad;
  const Threads guard(3);
  for (const auto& [dtype, tolerance] : {std::pair(torch::kDouble, 1e-9), std::pair(torch::kFloat, 1e-4)}) {
    SCOPED_TRACE(dtype);
    const auto base = tiny(dtype);
    for (const int trees : {1, 6}) {
      SCOPED_TRACE(trees);
      const auto forest = batch_of(trees).forest;
      const auto rows = model::forest_rows(forest);
      const auto expected = testing::reference_hidden(base, forest);
      const double bound = tolerance * expected.abs().max().item<double>();
      EXPECT_LT((model::hidden_of_all(base, rows) - expected).abs().max().item<double>(), bound);
      std::vector<std::int64_t> wanted;
      for (std::int64_t r = expected.size(0) - 1; r >= 0; r -= 2) wanted.push_back(r);  // backwards, and one twice
      wanted.push_back(wanted.front());
      EXPECT_LT((model::hidden_of(base, rows, wanted) - expected.index_select(0, torch::tensor(wanted))).abs().max().item<double>(), bound);
      EXPECT_EQ(model::hidden_of(base, rows, {}).size(0), 0);
    }
  }
}

/// A model with a bias at every linear map, which the Llama family does not have.
model::Model with_biases() {
  const auto base = tiny(torch::kDouble);
  auto spec = base.spec();
  spec.block.attention.has_qkv_bias = spec.block.attention.has_output_bias = spec.block.mlp.has_bias = true;
  tensor::TensorMap weights;
  for (const auto& [name, weight] : base.weights()) weights.emplace(name.starts_with("model.") ? name.substr(6) : name, weight);
  std::uint64_t seed = 0;
  for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    for (const auto& linear : model::block_linears(spec)) {
      weights.emplace(model::block_path(spec, layer, linear.name) + ".bias", testing::draw({linear.out}, ++seed, 0.5));
    }
  }
  return model::Model(spec, weights, base.placement(), {"biased", model::weights_hash(weights)});
}

TEST(Decoder, ComputesTrainsAndGivesBackBiases) {
  const auto base = with_biases();
  const auto batch = batch_of(1);
  const auto targets = loss_targets(batch, LossMean::kExamples);
  const auto expected = testing::reference_hidden(base, batch.forest);
  EXPECT_TRUE(torch::allclose(model::hidden_of_all(base, model::forest_rows(batch.forest)), expected, 1e-9, 1e-9));
  std::int64_t count = 0;
  for (const auto& [name, weight] : base.weights()) count += weight.numel();
  EXPECT_EQ(base.num_parameters(), count);

  FullWeights full("full", base.linears(), torch::kCPU, torch::kDouble);
  const model::TrainedModel trained(base, full.attach(base.linears()));
  const double loss = model::add_loss_gradient(trained, model::forest_rows(batch.forest), targets);
  const auto leaf = full.values().clone().requires_grad_();
  const auto named = full.weights(leaf);
  testing::LinearDefinitions definitions;
  for (const auto& [path, linear] : base.linears()) {
    definitions.emplace(path, [weight = named.at(path + ".weight"), bias = named.at(path + ".bias")](
                                  const auto& x, const auto&, const auto&) { return testing::plain_linear(x, weight, bias); });
  }
  const auto reference = testing::reference_loss(base, batch.forest, targets, definitions);
  reference.backward();
  EXPECT_NEAR(loss, reference.item<double>(), 1e-9);
  EXPECT_GT(full.weights(leaf.grad()).at("layers.0.self_attn.q_proj.bias").norm().item<double>(), 1e-6);
  EXPECT_TRUE(torch::allclose(full.gradient(), leaf.grad(), 1e-8, 1e-10));
}

/// Nothing is computed or kept for tensors that no trained parameter changes.
TEST(Decoder, KeepsWhatTheTrainedUpdatesNeedAlone) {
  const auto base = tiny();
  const auto bytes = [&](std::vector<std::string> modules) {
    OneAdapter adapter(random_adapter(base, 3, std::move(modules)), torch::kCPU);
    return model::loss_gradient_bytes(model::TrainedModel(base, adapter.attach(base.linears())), 1000, 100);
  };
  EXPECT_LT(bytes({"layers.1.mlp.down_proj"}), bytes({"layers.0.mlp.down_proj"}));
  EXPECT_LT(bytes({"layers.0.mlp.down_proj"}), bytes({"layers.0.self_attn.q_proj"}));
  EXPECT_LT(bytes({"layers.0.self_attn.q_proj"}), bytes({"all-linear"}));
}

TEST(RowParts, CoverAllRowsOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    SCOPED_TRACE(threads);
    const Threads guard(threads);
    for (const std::int64_t count : {0, 1, 127, 128, 129, 500, 1537, 4099}) {
      SCOPED_TRACE(count);
      const backend::RowParts parts(count);
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      std::atomic<std::int64_t> largest{0};
      parts.for_each([&](const backend::RowPart& part) {
        for (auto r = part.begin; r < part.end; ++r) ++seen[static_cast<std::size_t>(r)];
        auto before = largest.load();
        while (part.size() > before && !largest.compare_exchange_weak(before, part.size())) {
        }
      });
      for (const auto& times : seen) EXPECT_EQ(times, 1);
      EXPECT_LE(largest, 516);
    }
  }
}

TEST(RowParts, RethrowWhatAPartThrows) {
  const Threads guard(3);
  const auto run = [] {
    backend::RowParts(600).for_each([](const backend::RowPart& part) {
      if (part.index == 1) throw std::runtime_error("part");
    });
  };
  EXPECT_THAT(run, ::testing::ThrowsMessage<std::runtime_error>("part"));
}

}  // namespace
}  // namespace quiver::train
