"""Writes tests/golden/safetensors: small files made by the Python library itself.

    .venv/bin/python scripts/golden/make_safetensors.py

The library orders metadata keys at random, so a file here has one key at most.
"""

import pathlib

import safetensors
import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "safetensors"


def counting(dtype, *shape):
    """1, 2, 3, ... in the given shape."""
    count = 1
    for dim in shape:
        count *= dim
    return torch.arange(1, count + 1).to(dtype).reshape(shape)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    every_dtype = {
        "f32": counting(torch.float32, 2, 3),
        "f64": counting(torch.float64, 3),
        "bf16": counting(torch.bfloat16, 5),
        "f16": counting(torch.float16, 1, 3),
        "i64": counting(torch.int64, 2),
        "i32": counting(torch.int32, 3),
        "i16": counting(torch.int16, 3),
        "i8": counting(torch.int8, 3),
        "u8": counting(torch.uint8, 3),
        "bool": torch.tensor([True, False, True]),
        "a scalar": torch.tensor(7.0),
        "an empty one": torch.zeros(0, 4),
        'é "quoted" \\ \n\t\x01\x7f/': counting(torch.float32, 1),
    }
    save_file(every_dtype, OUT / "every_dtype.safetensors", metadata={"format": "pt"})
    adapter = {
        f"base_model.model.model.layers.{layer}.self_attn.{proj}.lora_{factor}.weight": counting(torch.float32, *shape)
        for layer in (0, 1, 10)
        for proj in ("q_proj", "v_proj")
        for factor, shape in (("A", (2, 4)), ("B", (4, 2)))
    }
    save_file(adapter, OUT / "adapter.safetensors")
    save_file({}, OUT / "nothing.safetensors")
    save_file({}, OUT / "only_metadata.safetensors", metadata={'a "key"': "a\nvalue"})

    (OUT / "README.md").write_text(
        "Files written by `safetensors.torch.save_file`, which `serialize_safetensors` must reproduce byte for byte.\n\n"
        "Made by `scripts/golden/make_safetensors.py` with "
        f"safetensors {safetensors.__version__} and torch {torch.__version__}. No randomness; no tolerance.\n"
    )


if __name__ == "__main__":
    main()
