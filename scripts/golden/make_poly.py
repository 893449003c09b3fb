"""One Linear under PEFT's Poly, with outputs and gradients -> tests/golden/poly.

    .venv/bin/python scripts/golden/make_poly.py
"""

from __future__ import annotations

import torch
from peft import PolyConfig, get_peft_model

import common

FOLDER = common.GOLDEN / "poly"
SEED = 29
D_IN, D_OUT, RANK, SKILLS, TASKS = 12, 8, 2, 3, 4


def case(num_heads: int) -> dict:
    """Outputs of a batch of sequences of tasks 2, 0, 2, and the gradient of <y, dy>, in eval mode (no sampling), fp64."""
    torch.manual_seed(SEED + num_heads)
    base = torch.nn.Sequential()
    base.add_module("q_proj", torch.nn.Linear(D_IN, D_OUT, bias=False))
    config = PolyConfig(target_modules=["q_proj"], r=RANK, n_tasks=TASKS, n_skills=SKILLS, n_splits=num_heads, init_weights=False)
    model = get_peft_model(base, config).double().eval()
    layer = model.base_model.model.q_proj
    router = layer.poly_router["default"]
    router.module_logits.data = torch.randn(TASKS, num_heads * SKILLS, dtype=torch.float64)
    x = torch.randn(3, 5, D_IN, dtype=torch.float64)
    dy = torch.randn(3, 5, D_OUT, dtype=torch.float64)
    y = layer(x, task_ids=torch.tensor([2, 0, 2]))
    (y * dy).sum().backward()
    prefix = f"heads{num_heads}."
    a, b = layer.poly_lora_A["default"], layer.poly_lora_B["default"]  # [S, K, d_in / S, r], [S, K, r, d_out / S]
    return {
        prefix + "weight": layer.base_layer.weight, prefix + "x": x, prefix + "y": y, prefix + "dy": dy,
        prefix + "a": a, prefix + "b": b, prefix + "logits": router.module_logits,
        prefix + "da": a.grad, prefix + "db": b.grad, prefix + "dlogits": router.module_logits.grad,
    }


def main() -> None:
    common.save_tensors(FOLDER / "poly.safetensors", {**case(1), **case(2)})


if __name__ == "__main__":
    main()
