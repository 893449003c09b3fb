"""Writes a small model of a family whose real checkpoints are not at hand, for the demo on other architectures.

    .venv/bin/python scripts/tiny_base.py --family phi --output runs/tiny/phi-untrained

Four blocks of random weights around the embedding, the final norm and the tokenizer of the default base. `make tiny-base FAMILY=phi` then
trains the blocks on the data pack (`quiver train --full`), which takes a few minutes, so that `make demo BASE=runs/tiny/phi` has something
to improve.
"""

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGUFReader, quants
from transformers import AutoConfig, AutoModelForCausalLM

WIDTH, LAYERS, HEADS, CONTEXT, WINDOW = 576, 4, 9, 1024, 128
COMMON = dict(
    hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=3, intermediate_size=1536, head_dim=64,
    max_position_embeddings=CONTEXT, tie_word_embeddings=True,
)  # fmt: skip
# What is particular to a family. Windows are short, so that texts of the data pack are longer.
FAMILIES = {
    "llama": {},
    "mistral": dict(sliding_window=WINDOW),
    "qwen2": {},
    "qwen3": {},
    "smollm3": {},
    "granite": dict(attention_multiplier=0.125, embedding_multiplier=2.0, residual_multiplier=0.5, logits_scaling=1.0),
    "olmo2": {},
    "phi": dict(num_key_value_heads=HEADS, intermediate_size=2304, tie_word_embeddings=False),
    "phi3": dict(sliding_window=WINDOW),
    "stablelm": {},
    "gpt_neox": dict(intermediate_size=2304),
    "gpt_neo": dict(num_layers=LAYERS, num_heads=HEADS, attention_types=[[["global", "local"], LAYERS // 2]], window_size=WINDOW),
    "gpt2": dict(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT),
    "gemma": {},
    "gemma2": dict(sliding_window=WINDOW, query_pre_attn_scalar=64),
    "gemma3_text": dict(sliding_window=WINDOW, query_pre_attn_scalar=64, sliding_window_pattern=2),
}


def default_base() -> Path:
    """Where `quiver fetch` puts the default base."""
    for variable, below in (("QUIVER_CACHE", ""), ("XDG_CACHE_HOME", "quiver"), ("HOME", ".cache/quiver")):
        if os.environ.get(variable):
            return Path(os.environ[variable], below, "SmolLM2-135M-Instruct.Q4_1.gguf")
    raise SystemExit("tiny_base: set HOME or QUIVER_CACHE")


def tensor_of(reader: GGUFReader, name: str) -> torch.Tensor:
    tensor = next(t for t in reader.tensors if t.name == name)
    return torch.from_numpy(np.array(quants.dequantize(tensor.data, tensor.tensor_type)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", required=True, choices=FAMILIES)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quiver", default="build/quiver", help="the program, which writes the tokenizer")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(options.seed)

    reader = GGUFReader(default_base())
    embedding, norm = tensor_of(reader, "token_embd.weight"), tensor_of(reader, "output_norm.weight")
    settings = COMMON | FAMILIES[options.family] | dict(vocab_size=embedding.shape[0], bos_token_id=1, eos_token_id=2, pad_token_id=2)
    config = AutoConfig.for_model(options.family, **settings)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(embedding)
        model.get_output_embeddings().weight.copy_(embedding)
        final = [module for name, module in model.named_modules() if name.split(".")[-1] in ("norm", "final_layernorm", "ln_f", "final_layer_norm")][-1]
        final.weight.copy_(norm - 1 if options.family.startswith("gemma") else norm)
    model.bfloat16().save_pretrained(str(options.output))
    # A model folder that Quiver writes from a GGUF base has the tokenizer of that base.
    donor = options.output.with_name(options.output.name + ".tokenizer")
    shutil.rmtree(donor, ignore_errors=True)
    subprocess.run([options.quiver, "export", "--format", "hf", "--type", "bf16", "--output", donor], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(donor / "tokenizer.gguf", options.output / "tokenizer.gguf")
    shutil.rmtree(donor)
    count = sum(p.numel() for p in model.parameters())
    print(json.dumps({"path": str(options.output), "family": options.family, "parameters": count}))


if __name__ == "__main__":
    main()
