// Trains a LoRA of rank 4 on one task, and saves it as a PEFT folder.
//
//   example_train_adapter BASE TASKS TASK OUTPUT      TASKS/TASK.jsonl: lines of {"split": "train", "source", "target"}
#include <exception>
#include <iostream>

#include "quiver/quiver.h"

int main(int argc, char** argv) try {
  using namespace quiver;
  if (argc != 5) fail(ErrorKind::kUsage, "usage: example_train_adapter BASE TASKS TASK OUTPUT");
  adapters::check_may_write(argv[4], /*force=*/false);  // before the work

  auto base = methods::load_base(argv[1], tensor::resolve_placement("auto", "auto"));
  base.format = methods::prompt_format(base.path, base.tokenizer, {});  // chat where the base has a template

  std::vector<forest::Sequence> examples;  // tokens, of which the target's are trained on
  for (const auto& example : data::load_task(argv[2], argv[3]).train) {
    examples.push_back(data::encode_example(base.tokenizer, base.format, example, /*max_length=*/512));
  }

  const adapters::LoraOptions lora{.rank = 4, .alpha = 16, .target_modules = {"q_proj", "v_proj"}};
  const train::TrainOptions options{.optimizer = {.learning_rate = 5e-3}, .epochs = 4, .batch_size = 8, .seed = 42};
  train::Trainer trainer(base.lm, methods::initial_adapter(base, argv[3], lora, options.seed), std::move(examples), options);
  while (!trainer.is_done()) trainer.run_step();

  const auto& losses = trainer.stats().losses;
  std::cout << "loss " << losses.front() << " at step 1, " << losses.back() << " at step " << trainer.num_steps() << "\n";
  adapters::save_peft(argv[4], trainer.adapter());
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
