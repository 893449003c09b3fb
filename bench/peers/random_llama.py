"""Writes a Llama of random weights in bfloat16, 1.1 GiB, without a tokenizer, and prints {"bytes"} of its weights.

    python bench/peers/random_llama.py FOLDER
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

WIDTH, LAYERS, INNER, VOCABULARY = 2048, 8, 8192, 32000


def main():
    folder = pathlib.Path(sys.argv[1])
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return (0.02 * torch.randn(*shape, generator=generator)).bfloat16()

    tensors = {"model.embed_tokens.weight": draw(VOCABULARY, WIDTH), "model.norm.weight": torch.ones(WIDTH, dtype=torch.bfloat16)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            tensors[f"{block}self_attn.{name}_proj.weight"] = draw(WIDTH, WIDTH)
        for name in ("gate", "up"):
            tensors[f"{block}mlp.{name}_proj.weight"] = draw(INNER, WIDTH)
        tensors[f"{block}mlp.down_proj.weight"] = draw(WIDTH, INNER)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{block}{name}.weight"] = torch.ones(WIDTH, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = dict(
        model_type="llama", hidden_size=WIDTH, num_hidden_layers=LAYERS, intermediate_size=INNER, vocab_size=VOCABULARY, num_attention_heads=16,
        num_key_value_heads=16, max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=True, torch_dtype="bfloat16",
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    print(json.dumps({"bytes": sum(t.numel() * t.element_size() for t in tensors.values())}))


if __name__ == "__main__":
    main()
