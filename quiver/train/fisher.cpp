#include "quiver/train/fisher.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/model/decoder.h"
#include "quiver/train/trainable.h"
#include "quiver/train/trainer.h"

namespace quiver::train {

tensor::TensorMap fisher_diagonal(const model::Model& base, const adapters::LoraAdapter& adapter,
                                  std::span<const forest::Sequence> examples) {
  if (examples.empty()) fail(ErrorKind::kUsage, "no examples of adapter '{}' to see what its task asks of its parameters", adapter.name);
  OneAdapter trained(adapter, base.placement().device, tensor::compute_dtype(base.placement().dtype));
  const model::TrainedModel adapted(base, trained.attach(base.linears()));
  const std::int32_t only_group = 0;
  trained.lay_out(std::span(&only_group, 1));
  auto squares = torch::zeros_like(trained.values());
  for (auto example : examples) {
    throw_if_stopped("while measuring what tasks ask of adapters");
    example.group = only_group;
    const auto batch = forest::build_batch(std::span(&example, 1), {.share_prefixes = false});
    trained.gradient().zero_();
    model::add_loss_gradient(adapted, model::forest_rows(batch.forest), loss_targets(batch, LossMean::kExamples));
    squares.addcmul_(trained.gradient(), trained.gradient());
  }
  squares /= static_cast<double>(examples.size());
  tensor::TensorMap diagonal;
  for (const auto& [path, pair] : trained.adapter(squares).pairs) {
    diagonal.emplace(path + ".lora_a", pair.lora_a());
    diagonal.emplace(path + ".lora_b", pair.lora_b());
  }
  return diagonal;
}

}  // namespace quiver::train
