"""Writes COUNT LoRA adapters of random factors as PEFT has them: rank 4 on q, k, v and o of SmolLM2-135M, alpha 16.

    python bench/peers/random_adapters.py FOLDER COUNT
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

WIDTH, LAYERS, RANK = 576, 30, 4
OUTPUTS = {"q": 576, "k": 192, "v": 192, "o": 576}


def main():
    folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    config = dict(peft_type="LORA", task_type="CAUSAL_LM", r=RANK, lora_alpha=16, lora_dropout=0.0, bias="none", inference_mode=True,
                  base_model_name_or_path=None, target_modules=[f"{name}_proj" for name in OUTPUTS])  # fmt: skip
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        tensors = {}
        for layer in range(LAYERS):
            for name, outputs in OUTPUTS.items():
                path = f"base_model.model.model.layers.{layer}.self_attn.{name}_proj"
                tensors[f"{path}.lora_A.weight"] = torch.randn(RANK, WIDTH, generator=generator) / WIDTH**0.5
                tensors[f"{path}.lora_B.weight"] = 0.01 * torch.randn(outputs, RANK, generator=generator)
        adapter = folder / f"random{number:03}"
        adapter.mkdir(parents=True)
        save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
        (adapter / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
