"""What all golden-value generators share: places, versions, tensors on disk, the tiny models."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
DATA = ROOT / "data"
MODELS = GOLDEN / "model"
SMOLLM2_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def single_threaded() -> None:
    """One thread and deterministic kernels: the same values on every run of one machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct: $QUIVER_SMOLLM2 or the cache."""
    return Path(os.environ.get("QUIVER_SMOLLM2", Path.home() / ".cache/quiver" / SMOLLM2_NAME))


def versions(*packages: str) -> str:
    """One line for the README: Python and package versions."""
    parts = [f"Python {platform.python_version()}"]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join(parts)


def save_tensors(path: Path, tensors: dict) -> None:
    """Writes tensors (torch or NumPy) as safetensors, names sorted, every one contiguous."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {}
    for name in sorted(tensors):
        value = tensors[name]
        if isinstance(value, numpy.ndarray):
            value = torch.from_numpy(numpy.ascontiguousarray(value))
        plain[name] = value.detach().clone().contiguous()
    save_file(plain, str(path))
    path.chmod(0o644)


def load_tensors(path: Path) -> dict:
    return load_file(str(path))


def save_json(path: Path, value, indent: int | None = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=None if indent else (",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def load_jsonl_zst(path: Path) -> list:
    """Rows of a .jsonl.zst file of the data pack."""
    import subprocess

    text = subprocess.run(["zstd", "-dc", str(path)], check=True, capture_output=True).stdout
    return [json.loads(line) for line in text.decode("utf-8").splitlines() if line]


def load_llama(name_or_path, dtype=torch.float32):
    """A tiny golden model (by folder name) or any Hugging Face folder, in fp32 with eager attention."""
    from transformers import LlamaForCausalLM

    path = MODELS / name_or_path if isinstance(name_or_path, str) else name_or_path
    model = LlamaForCausalLM.from_pretrained(str(path), dtype=dtype, attn_implementation="eager")
    return model.eval()


@torch.no_grad()
def logits_of(model, ids: list) -> torch.Tensor:
    """fp32 logits [T, V] of one sequence."""
    return model(input_ids=torch.tensor([ids])).logits[0].float()


@torch.no_grad()
def greedy(model, ids: list, count: int) -> tuple[list, float]:
    """`count` greedy tokens (EOS is a token like any other) and the smallest top-1 to top-2 margin met."""
    cache, step, tokens, margin = None, torch.tensor([ids]), [], float("inf")
    for _ in range(count):
        out = model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        top = out.logits[0, -1].float().topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        tokens.append(int(top.indices[0]))
        step = torch.tensor([[tokens[-1]]])
    return tokens, margin
