"""Tiny random checkpoints of every family with golden logits, greedy tokens and gradients -> tests/golden/families.

    .venv/bin/python scripts/golden/make_families.py [CASE ...]

Each case is a folder as the hub holds it: config.json and bfloat16 weights. config.json is in the spelling of transformers 4 for half of
the cases, as written below, and in that of transformers 5 for the others. saved.json holds the other spelling: both must mean the same.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

import common

VOCAB, LENGTH, NEW = 97, 24, 32
FAMILIES = common.GOLDEN / "families"
IDS = dict(bos_token_id=1, eos_token_id=2)
BASE = dict(
    IDS, vocab_size=VOCAB, hidden_size=48, intermediate_size=80, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2,
    max_position_embeddings=64, pad_token_id=0,
)  # fmt: skip
NEOX = dict(
    IDS, model_type="gpt_neox", vocab_size=VOCAB, hidden_size=96, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
    max_position_embeddings=64,
)  # fmt: skip
NEO = dict(
    IDS, model_type="gpt_neo", vocab_size=VOCAB, hidden_size=48, num_layers=4, num_heads=6, max_position_embeddings=64,
    attention_types=[[["global", "local"], 2]], window_size=5,
)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
SHORT, LONG = [1.0, 1.1, 1.3, 1.5], [2.0, 3.0, 4.0, 5.0]
GEMMA2 = dict(
    BASE, model_type="gemma2", head_dim=16, sliding_window=5, query_pre_attn_scalar=20, attn_logit_softcapping=2.0,
    final_logit_softcapping=3.0,
)  # fmt: skip
GEMMA3 = dict(
    GEMMA2, model_type="gemma3_text", num_hidden_layers=7, rope_theta=1e6, rope_local_base_freq=100.0,
    rope_scaling=dict(rope_type="linear", factor=8.0), sliding_window_pattern=3,
)  # fmt: skip
CASES = {
    "llama": dict(BASE, model_type="llama", head_dim=12, attention_bias=True, mlp_bias=True),
    "llama-llama3": dict(BASE, model_type="llama", rope_theta=500.0, rope_scaling=LLAMA3),
    "llama-linear": dict(BASE, model_type="llama", rope_scaling=dict(type="linear", factor=3.0)),
    "llama-dynamic": dict(BASE, model_type="llama", rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama-yarn": dict(BASE, model_type="llama", rope_scaling=YARN),
    "llama-yarn-attention": dict(BASE, model_type="llama", rope_scaling=dict(YARN, attention_factor=1.3, beta_fast=16, beta_slow=2)),
    "mistral": dict(BASE, model_type="mistral", sliding_window=5, head_dim=16),
    "mistral-full": dict(BASE, model_type="mistral", sliding_window=None),
    "qwen2": dict(BASE, model_type="qwen2", tie_word_embeddings=True, use_sliding_window=False, sliding_window=5),
    "qwen2-window": dict(BASE, model_type="qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=2),
    "qwen3": dict(BASE, model_type="qwen3", head_dim=16),
    "smollm3": dict(BASE, model_type="smollm3"),
    "smollm3-window": dict(BASE, model_type="smollm3", no_rope_layers=[0, 1, 1, 0], use_sliding_window=True, sliding_window=4),
    "granite": dict(
        BASE, model_type="granite", attention_multiplier=0.3, embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0,
        attention_bias=True, mlp_bias=True,
    ),
    "olmo2": dict(BASE, model_type="olmo2"),
    "phi3": dict(BASE, model_type="phi3", sliding_window=7),
    "phi3-short": dict(
        BASE, model_type="phi3", original_max_position_embeddings=64, max_position_embeddings=256,
        rope_scaling=dict(type="longrope", short_factor=SHORT, long_factor=LONG),
    ),
    "phi3-long": dict(
        BASE, model_type="phi3", original_max_position_embeddings=16, max_position_embeddings=128, partial_rotary_factor=0.75,
        rope_scaling=dict(type="longrope", short_factor=SHORT[:3], long_factor=LONG[:3]),
    ),
    "phi": dict(BASE, model_type="phi", partial_rotary_factor=0.5),
    "stablelm": dict(BASE, model_type="stablelm", use_qkv_bias=True, partial_rotary_factor=0.5),
    "stablelm-parallel": dict(BASE, model_type="stablelm", use_parallel_residual=True, partial_rotary_factor=0.5, hidden_size=96),
    "gpt_neox": dict(NEOX, rotary_pct=0.25, rotary_emb_base=5000),
    "gpt_neox-sequential": dict(NEOX, use_parallel_residual=False, attention_bias=False, rotary_pct=1.0),
    "gpt_neo": dict(NEO, intermediate_size=80),
    "gpt_neo-default": dict(NEO, num_layers=2, attention_types=[[["global", "local"], 1]]),
    "gpt2": dict(IDS, model_type="gpt2", vocab_size=VOCAB, n_embd=48, n_layer=3, n_head=6, n_positions=64, n_inner=80),
    "gemma": dict(BASE, model_type="gemma", head_dim=16),
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    # Text and images: keys of the text that are absent have defaults of their own.
    "gemma3": dict(
        IDS, model_type="gemma3", image_token_index=96, boi_token_index=95, eoi_token_index=94, mm_tokens_per_image=4,
        text_config={k: v for k, v in dict(GEMMA3, num_hidden_layers=3, num_attention_heads=8).items() if k not in IDS and k not in ("num_attention_heads", "num_key_value_heads")},
        vision_config=dict(
            model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28,
            patch_size=14,
        ),
    ),
}  # fmt: skip
# One case of each set of names: adapters on every linear map.
WITH_ADAPTER = "llama qwen3 olmo2 phi3 phi stablelm gpt_neox gpt_neo gpt2 gemma2 gemma3_text granite smollm3-window".split()


def randomise(model, seed: int) -> None:
    """Values of bfloat16, so that a file of half the size holds them exactly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1 and ("norm" in name or ".ln_" in name) and not name.endswith("bias"):
                weight.add_(0.3 * noise)
            else:
                weight.copy_((0.2 if weight.dim() == 1 else 0.25) * noise)
            weight.copy_(weight.bfloat16().float())


def make_model(config: dict, seed: int):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager").float().eval()
    randomise(model, seed)
    return model


def write_adapter(name: str, model, tokens: list, tensors: dict) -> float:
    """A LoRA on every linear map, and the gradient of sum_t -log p(token_t | tokens before) in its factors."""
    config = LoraConfig(r=2, lora_alpha=3, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=name.startswith("gpt2"))
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(7)
    factors = {key: value for key, value in adapted.named_parameters() if value.requires_grad}
    with torch.no_grad():
        for value in factors.values():
            value.copy_((0.2 * torch.randn(value.shape, generator=generator)).bfloat16().float())
    logits = adapted(input_ids=torch.tensor([tokens])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="sum")
    loss.backward()
    adapted.save_pretrained(str(FAMILIES / name / "adapter"))
    (FAMILIES / name / "adapter" / "README.md").unlink()
    settings = json.loads((FAMILIES / name / "adapter" / "adapter_config.json").read_text())
    common.save_json(FAMILIES / name / "adapter" / "adapter_config.json", settings | {"base_model_name_or_path": name, "target_modules": sorted(settings["target_modules"])}, 1)
    for key, value in factors.items():
        tensors["gradient." + key.replace(".default", "")] = value.grad
    return float(loss.detach())


def make(name: str, config: dict, is_saved_spelling: bool) -> None:
    folder = FAMILIES / name
    for seed in range(1, 100):
        model = make_model(config, seed)
        tokens = torch.randint(3, VOCAB, (LENGTH,), generator=torch.Generator().manual_seed(seed)).tolist()
        logits = common.logits_of(model, tokens)
        greedy, margin = common.greedy(model, tokens, NEW)
        if margin > 1e-3 * float(logits.abs().max()) and 2 not in greedy:
            break
    else:
        raise RuntimeError(f"no seed gives {name} clear greedy tokens")
    shutil.rmtree(folder, ignore_errors=True)
    copy.deepcopy(model).bfloat16().save_pretrained(str(folder))  # a copy: scales and frequencies of the model would be rounded, too
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    saved = json.loads((folder / "config.json").read_text())
    common.save_json(folder / "config.json", saved if is_saved_spelling else config, 1)
    common.save_json(folder / "saved.json", config if is_saved_spelling else saved, 1)
    golden = {"seed": seed, "tokens": tokens, "greedy": greedy, "smallest_margin": round(margin, 5)}
    tensors = {"logits": logits}
    if name in WITH_ADAPTER:
        golden["adapter_loss"] = write_adapter(name, model, tokens, tensors)
    common.save_json(folder / "golden.json", golden, None)
    common.save_tensors(folder / "golden.safetensors", tensors)
    largest = float(logits.abs().max())
    print(f"{name:22} seed {seed} logits to {largest:6.1f} margin {margin:.4f} {sorted(load_file(folder / 'model.safetensors'))[-1]}", flush=True)
    assert math.isfinite(largest)


def main() -> None:
    transformers.logging.set_verbosity_error()
    common.single_threaded()
    wanted = sys.argv[1:] or list(CASES)
    for index, (name, config) in enumerate(CASES.items()):
        if name in wanted:
            make(name, config, is_saved_spelling=index % 2 == 1)


if __name__ == "__main__":
    main()
