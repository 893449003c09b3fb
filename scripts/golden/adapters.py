"""PEFT adapters of the tiny models: made, filled and saved without anything of this machine in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

import common

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_LINEARS = ATTENTION + ["gate_proj", "up_proj", "down_proj"]


def attach(base_name: str, seed: int, **options):
    """A fresh PEFT model over a golden base; `options` are LoraConfig's."""
    options.setdefault("r", 4)
    options.setdefault("lora_alpha", 16)
    options.setdefault("target_modules", ATTENTION)
    torch.manual_seed(seed)
    return get_peft_model(common.load_llama(base_name), LoraConfig(task_type="CAUSAL_LM", **options)).eval()


def fill(model, seed: int, spread: float = 0.06) -> None:
    """Random values, far from zero, for every tensor of the adapter (both factors, biases, magnitudes)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_magnitude" in name:
                value.mul_(0.8 + 0.4 * torch.rand(value.shape, generator=generator))
            elif "lora_A" in name or "lora_embedding_A" in name:
                value.copy_(torch.randn(value.shape, generator=generator) / value.shape[1] ** 0.5)
            elif "lora_" in name or "modules_to_save" in name or "trainable_tokens_delta" in name or (value.requires_grad and name.endswith(".bias")):
                value.copy_(spread * torch.randn(value.shape, generator=generator))


def save(model, folder: Path, base_name: str, adapter: str = "default") -> None:
    """The PEFT folder: adapter_config.json and adapter_model.safetensors, the base by its bare name."""
    shutil.rmtree(folder, ignore_errors=True)
    model.peft_config[adapter].base_model_name_or_path = base_name
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    config = json.loads((folder / "adapter_config.json").read_text())
    if isinstance(config["target_modules"], list):  # a set in PEFT: its order changes from run to run
        config["target_modules"].sort()
    common.save_json(folder / "adapter_config.json", config, 2)


def weights(model, dtype=torch.float32) -> dict:
    """Adapter tensors under their names in the saved file."""
    return {
        name.replace(".default", ""): value.detach().to(dtype)
        for name, value in model.named_parameters()
        if "lora_" in name
    }
