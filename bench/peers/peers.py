"""What the peer benchmarks share: the base model from GGUF, its tokenizer, the data pack, one line of result."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
from pathlib import Path

import gguf
import torch
import transformers
from transformers import LlamaForCausalLM
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "golden"))

from common import load_jsonl_zst, smollm2_path  # noqa: E402
from make_smollm2 import tokenizer_from_gguf  # noqa: E402

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
EOS, PAD = 2, 2


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--base", type=Path, default=smollm2_path(), help="GGUF file of the base model")
    made.add_argument("--data", type=Path, default=ROOT / "data", help="the data pack")
    made.add_argument("--threads", type=int, default=1, help="threads of torch")
    made.add_argument("--dtype", choices=DTYPES, default="bf16", help="dtype of the base model")
    made.add_argument("--batch", type=int, default=16, help="sequences per (padded) batch")
    made.add_argument("--device", default="cpu")
    return made


def load(options):
    """(model, tokenizer); weights dequantised from GGUF, attention by torch's fused kernel (sdpa)."""
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    model = LlamaForCausalLM.from_pretrained(
        str(options.base.parent), gguf_file=options.base.name, dtype=DTYPES[options.dtype], attn_implementation="sdpa"
    )
    return model.to(options.device), tokenizer_from_gguf(gguf.GGUFReader(str(options.base)))


def encode(tokenizer, text: str) -> list:
    return tokenizer.encode(text, add_special_tokens=False).ids


def padded(rows: list, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and attention mask, [B, longest]."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask


def report(options, **result) -> None:
    """One JSON object on stdout: where and how it ran, the most memory it held, then the result."""
    setting = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    setting["base"], setting["data"] = options.base.name, options.data.name
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"options": setting, "machine": platform.machine(), "versions": versions, "peak_bytes": peak, **result}))
