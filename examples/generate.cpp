// Continues a prompt, or answers it where the base model has a chat template, with a PEFT adapter attached.
//
//   example_generate BASE ADAPTER PROMPT      BASE: a Hugging Face folder or a GGUF file; ADAPTER: a PEFT folder
#include <exception>
#include <iostream>

#include "quiver/quiver.h"

int main(int argc, char** argv) try {
  using namespace quiver;
  if (argc != 4) fail(ErrorKind::kUsage, "usage: example_generate BASE ADAPTER PROMPT");

  auto base = methods::load_base(argv[1], tensor::resolve_placement("auto", "auto"));
  base.format = methods::prompt_format(base.path, base.tokenizer, {});  // chat where the base has a template

  const auto adapter = adapters::load_peft(argv[2]);
  if (const auto warning = methods::check_fits_base(adapter, base, /*allow_other_base=*/false)) std::cerr << *warning << "\n";
  const auto model = base.lm.with_linears(adapters::attach(base.lm.linears(), adapter));  // shares the weights of the base

  const std::vector<std::vector<std::int32_t>> prompts = {data::encode_user_text(base.tokenizer, base.format, argv[3], "the prompt")};
  const schedule::RequestOptions greedy{.max_new_tokens = 32, .stop_ids = data::stop_ids(base.tokenizer, base.format)};
  const auto answers = model::generate(model, prompts, greedy);
  std::cout << base.tokenizer.decode(answers[0], /*skip_special=*/true) << "\n";
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
