"""PEFT adapter folders over the tiny tied model, and logits with each -> tests/golden/peft.

    .venv/bin/python scripts/golden/make_peft.py
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer

import adapters
import common

BASE = "llama-tied"
FOLDER = common.GOLDEN / "peft"
PROMPT = "Is the review positive or negative?\n\nReview: the archer read the text twice.\nAnswer:"

SUPPORTED = {
    "plain": {},
    "bf16": {},  # the file's tensors are bf16; PEFT computes in fp32
    "one-module": {"r": 2, "lora_alpha": 3, "target_modules": ["v_proj"]},
    "patterns": {
        "rank_pattern": {"layers.1.self_attn.o_proj": 8, "o_proj": 2, "q_proj": 3},
        "alpha_pattern": {"layers.0.self_attn.v_proj": 32, "o_proj": 5, r"layers\.1.*k_proj": 1},
    },
    "rslora": {"use_rslora": True},
    "rslora-patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"v_proj": 2}},
    "all-linears": {"r": 3, "target_modules": adapters.ALL_LINEARS},
    "regex-targets": {"target_modules": r".*layers\.1\.(self_attn\.q_proj|mlp\.down_proj)"},
    "one-layer": {"layers_to_transform": [1]},
    "fan-in-fan-out": {},
    "dora": {"use_dora": True},
    "bias-lora-only": {"bias": "lora_only"},  # Llama has no biases, so none was trained
    "lora-bias": {"lora_bias": True},
    "modules-to-save": {"modules_to_save": ["norm"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"], "r": 2},
    # The head of this base is tied to its embedding. PEFT adapts one and leaves the other; rows of tokens change both.
    "head": {"target_modules": ["q_proj", "lm_head"], "r": 2},
    "saved-embedding": {"modules_to_save": ["embed_tokens"]},
    "saved-head": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": [3, 71, 72, 110]},
}
REFUSED = {
    "tied-embedding": {"target_modules": ["q_proj", "embed_tokens"], "r": 2, "ensure_weight_tying": True},
    "dora-embedding": {"target_modules": ["q_proj", "embed_tokens"], "r": 2, "use_dora": True},
}


def edit_config(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    common.save_json(path, {**json.loads(path.read_text()), **changes}, 2)


def make(name: str, seed: int, options: dict, ids: list) -> torch.Tensor:
    """Saves one folder and returns the logits PEFT gives after loading it again."""
    folder = FOLDER / name
    model = adapters.attach(BASE, seed, **options)
    adapters.fill(model, seed)
    adapters.save(model, folder, BASE)
    if name == "bf16":
        path = folder / "adapter_model.safetensors"
        common.save_tensors(path, {key: value.bfloat16() for key, value in load_file(str(path)).items()})
    if name == "fan-in-fan-out":
        edit_config(folder, fan_in_fan_out=True)
    base = common.load_llama(BASE)
    without = common.logits_of(base, ids)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(base, str(folder)).eval()
    said = [str(w.message) for w in caught if "fan_in_fan_out" in str(w.message)]
    assert bool(said) == (name == "fan-in-fan-out"), said
    if name == "patterns":
        layer = loaded.base_model.model.model.layers[1].self_attn
        assert layer.k_proj.scaling["default"] == 1 / 4 and layer.o_proj.scaling["default"] == 5 / 8
    logits = common.logits_of(loaded, ids)
    change = (logits - without).abs().max()
    assert change > 0.2, (name, change)
    if name != "bf16":
        assert torch.equal(logits, common.logits_of(model, ids))
    print(f"{name}: largest change of a logit {change:.2f} {said[:1]}")
    return logits


def gradients_of(name: str, ids: list) -> dict:
    """The gradient of sum_t -log p(token_t | tokens before) in all that the folder holds."""
    model = PeftModel.from_pretrained(common.load_llama(BASE), str(FOLDER / name), is_trainable=True).eval()
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").backward()
    return {key.replace(".default", ""): p.grad for key, p in model.named_parameters() if p.requires_grad}


# Changes of the configuration of "plain", and the layers whose tensors are taken out of its file.
WARNED = [
    ({}, []),
    ({"rank_pattern": {"gate_proj": 8}}, []),
    ({"rank_pattern": {"x_proj": 8, r"layers\.0\.self_attn\.q": 8, "q_proj": 4}}, []),
    ({"alpha_pattern": {"nothing": 3, "v_proj": 16}}, []),
    ({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "c_attn"]}, []),
    ({}, [1]),
    ({"layers_to_transform": [0, 1, 7]}, []),
    ({"layers_to_transform": [0, 1]}, [0]),
    ({"exclude_modules": ["nothing"]}, []),
    ({"exclude_modules": ["lm_head"]}, []),
    ({"exclude_modules": ["mlp"]}, []),
    ({"exclude_modules": r"model\.layers"}, []),
    ({"exclude_modules": r".*c_attn"}, []),
]
# What each warning of PEFT begins with, and a word for it.
KINDS = {
    "Found missing adapter keys": "missing",
    "You have passed exclude_modules": "exclude_modules",
    "The following rank_pattern keys": "rank_pattern",
    "The following alpha_pattern keys": "alpha_pattern",
}


def warnings_of(changes: dict, without_layers: list) -> list:
    """The kinds of warnings that PEFT gives when it loads "plain" with these changes."""
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "plain"
        shutil.copytree(FOLDER / "plain", folder)
        edit_config(folder, **changes)
        path = folder / "adapter_model.safetensors"
        kept = {k: v for k, v in load_file(str(path)).items() if not any(f"layers.{i}." in k for i in without_layers)}
        common.save_tensors(path, kept)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            PeftModel.from_pretrained(common.load_llama(BASE), str(folder))
    return sorted(word for w in caught for start, word in KINDS.items() if str(w.message).startswith(start))


def check_magnitude_names(ids: list, logits: torch.Tensor) -> None:
    """PEFT takes a magnitude's key with ".weight", which it leaves out, for the same."""
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "dora"
        shutil.copytree(FOLDER / "dora", folder)
        path = folder / "adapter_model.safetensors"
        tensors = load_file(str(path))
        assert any(key.endswith(".lora_magnitude_vector") for key in tensors)
        common.save_tensors(path, {k + ".weight" if k.endswith("magnitude_vector") else k: v for k, v in tensors.items()})
        loaded = PeftModel.from_pretrained(common.load_llama(BASE), str(folder)).eval()
        assert torch.equal(common.logits_of(loaded, ids), logits)


def main() -> None:
    common.single_threaded()
    warnings.filterwarnings("ignore")
    tokenizer = Tokenizer.from_file(str(common.MODELS / BASE / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT, add_special_tokens=False).ids
    tensors, gradients = {}, {}
    for seed, (name, options) in enumerate({**SUPPORTED, **REFUSED}.items(), start=100):
        logits = make(name, seed, options, ids)
        if name == "dora":
            check_magnitude_names(ids, logits)
        tensors[f"{name}.logits"] = logits[::3]
        if name == "lora-bias":
            gradients = gradients_of(name, ids)
    common.save_tensors(FOLDER / "logits.safetensors", tensors)
    common.save_tensors(FOLDER / "gradients.safetensors", gradients)
    common.save_json(FOLDER / "cases.json", {
        "base": BASE, "text": PROMPT, "ids": ids, "positions": list(range(0, len(ids), 3)),
        "supported": list(SUPPORTED), "refused": list(REFUSED),
    })
    rows = [{"changes": changes, "without_layers": layers, "warnings": warnings_of(changes, layers)} for changes, layers in WARNED]
    common.save_json(FOLDER / "warnings.json", rows)


if __name__ == "__main__":
    main()
