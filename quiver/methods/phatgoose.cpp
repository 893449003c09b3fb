// Phatgoose (Muqeeth et al. 2024): every adapter learns a gate at each projection on rows of its own tasks.
#include <torch/utils.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "quiver/data/prompt_format.h"
#include "quiver/data/tasks.h"
#include "quiver/methods/kept.h"
#include "quiver/methods/parts.h"
#include "quiver/train/gates.h"
#include "quiver/train/training_run.h"

namespace quiver::methods {
namespace {

struct PhatgooseOptions : OptionsOf<TopK<2>, MixesOutputs, Softmax> {
  std::int64_t gate_steps = 100;
  TaskFolder task_data;
  std::uint64_t sample_seed = 42;
  static void describe(auto& schema) {
    OptionsOf::describe(schema);
    schema.add(&PhatgooseOptions::gate_steps, "gate_steps",
               {.help = "training steps of an adapter's gates (batches of 4 rows of its tasks); they are kept in the library",
                .range = at_least(1)});
    schema.add(&PhatgooseOptions::task_data, "task_data", {.help = "folder of the adapters' tasks"});
    schema.add(&PhatgooseOptions::sample_seed, "sample_seed", {.help = "draws these rows, and their order"});
  }
};

constexpr std::int64_t kBatch = 4;  // mttl's
constexpr std::int64_t kLongestRow = 2048;
constexpr double kCheckpointSeconds = 20;

/// What the gates of an adapter are trained from.
struct GateInputs {
  const model::Model& base;
  const adapters::LoraAdapter& adapter;
  const std::vector<forest::Sequence>& rows;
  const train::TrainOptions& options;
  std::filesystem::path checkpoint;
  void add_to(ArtifactKey& key) const {
    const auto& [lm, of_adapter, examples, train_options, path] = *this;  // a checkpoint changes nothing of the result
    key.add(lm).add_initial(of_adapter).add(examples).add(train_options);
  }
};

constexpr const char* kGates = "phatgoose-3";

/// The gates by path.
tensor::TensorMap train_gates(const GateInputs& in, Progress& progress) {
  const auto placement = in.base.placement();
  const auto gates =
      std::make_shared<train::Gates>(in.adapter, placement.device, placement.dtype == torch::kDouble ? torch::kDouble : torch::kFloat);
  train::Trainer trainer(in.base, std::shared_ptr<train::Trainable>(gates), in.rows, in.options);
  train::run_training(trainer, in.adapter.name + " (gates)", in.checkpoint, ArtifactKey(kGates).add(in).hex(), kCheckpointSeconds,
                      progress);
  return gates->gates(trainer.result());
}

/// The gates of an adapter by path, trained on rows of its tasks and kept in the library.
tensor::TensorMap gates_of(const LibraryContext& in, const adapters::LoraAdapter& adapter, const PhatgooseOptions& options) {
  const auto& tasks = tasks_of(in.library, adapter.name, "rows to train its gates on");
  const auto most = std::max<std::int64_t>(1, options.gate_steps * kBatch / static_cast<std::int64_t>(tasks.size()));
  const auto length = std::min(kLongestRow, in.base.lm.spec().max_positions);
  std::vector<forest::Sequence> rows;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    const auto task = data::load_task(options.task_data.path, tasks[t]);
    if (task.train.empty()) fail(ErrorKind::kUsage, "task '{}' has no training rows in '{}'", tasks[t], options.task_data.path.string());
    for (const auto& example : data::sample(task.train, most, options.sample_seed, task.name)) {
      rows.push_back(data::encode_example(in.base.tokenizer, in.base.format, example, length));
      rows.back().group = static_cast<std::int32_t>(t);
    }
  }
  const auto steps = (static_cast<std::int64_t>(rows.size()) + kBatch - 1) / kBatch;
  const train::TrainOptions train{.optimizer = {.learning_rate = 1e-3, .warmup_fraction = 0.1},
                                  .epochs = std::max<std::int64_t>(1, (options.gate_steps + steps - 1) / steps),
                                  .batch_size = kBatch,
                                  .seed = options.sample_seed};
  const auto checkpoint = in.library.path() / "checkpoints" / (adapter.name + ".gates.safetensors");
  auto gates = kept_in(in.library, kGates, {{"adapter", adapter.name}}, GateInputs{in.base.lm, adapter, rows, train, checkpoint},
                       train_gates, in.progress);
  train::remove_checkpoint(checkpoint);
  return gates;
}

/// softmax of the top k of <LayerNorm v, LayerNorm x> / sqrt(d_in), outputs mixed.
RoutedAdapters make_phatgoose(const LibraryContext& in, const PhatgooseOptions& options) {
  std::map<std::string, std::vector<torch::Tensor>> by_path;
  for (const auto& adapter : in.adapters) {
    for (auto& [path, gate] : gates_of(in, adapter, options)) {
      const auto scale = gate.var(/*unbiased=*/false).sqrt().clamp_min(1e-5);
      by_path[path].push_back(((gate - gate.mean()) / scale).unsqueeze(0));
    }
  }
  RoutedAdapters routed{.adapters = in.adapters, .combine = options.combine};
  for (const auto& [path, gates] : by_path) {
    if (gates.size() != in.adapters.size()) {
      fail(ErrorKind::kMismatch, "not all adapters adapt '{}': they cannot be routed together", path);
    }
    const auto vectors = finite(in, path, torch::stack(gates));  // [N, 1, d_in]
    const routing::ScoreOptions scores{.top_k = options.top_k_of(in.adapters.size()),
                                       .temperature = options.routing_temperature * std::sqrt(static_cast<double>(vectors.size(2))),
                                       .rule = {.input = routing::InputNorm::kLayerNorm, .is_signed = true}};
    routed.routers.emplace(path, std::make_shared<routing::ScoreRouter>(vectors, scores));
  }
  return routed;
}

}  // namespace

Method phatgoose() {
  return method_row(Family::kToken,
                    {"phatgoose", "Phatgoose", "gates that each adapter learnt on its tasks, the top 2 by their softmax",
                     "Muqeeth et al. 2024, arXiv 2402.05859"},
                    make_phatgoose);
}

}  // namespace quiver::methods
