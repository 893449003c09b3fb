"""PEFT adapter folders over the tiny tied model, and logits with each -> tests/golden/peft.

    .venv/bin/python scripts/golden/make_peft.py
"""

from __future__ import annotations

import json
import warnings

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
}
REFUSED = {
    "lora-bias": {"lora_bias": True},
    "modules-to-save": {"modules_to_save": ["norm"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"], "r": 2},
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


def main() -> None:
    common.single_threaded()
    warnings.filterwarnings("ignore")
    tokenizer = Tokenizer.from_file(str(common.MODELS / BASE / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT, add_special_tokens=False).ids
    tensors = {}
    for seed, (name, options) in enumerate({**SUPPORTED, **REFUSED}.items(), start=100):
        tensors[f"{name}.logits"] = make(name, seed, options, ids)[::3]
    common.save_tensors(FOLDER / "logits.safetensors", tensors)
    common.save_json(FOLDER / "cases.json", {
        "base": BASE, "text": PROMPT, "ids": ids, "positions": list(range(0, len(ids), 3)),
        "supported": list(SUPPORTED), "refused": list(REFUSED),
    })


if __name__ == "__main__":
    main()
