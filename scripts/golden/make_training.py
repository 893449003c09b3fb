"""LoRA training by PEFT and torch.optim.AdamW on the tiny models -> tests/golden/training.

    .venv/bin/python scripts/golden/make_training.py
"""

from __future__ import annotations

import math
import random

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import get_linear_schedule_with_warmup

import adapters
import common

FOLDER = common.GOLDEN / "training"
EOS = 2
NUM_STEPS = 20
BATCH = 6
CASES = {
    "example-mean": dict(base="llama-tied", seed=1, targets=adapters.ATTENTION, fill=False, loss="example_mean",
                         weight_decay=0.0, clip_norm=1.0),
    "token-mean": dict(base="llama-tied", seed=2, targets=adapters.ATTENTION, fill=True, loss="token_mean",
                       weight_decay=0.01, clip_norm=0.1),
    "sharded": dict(base="llama-sharded", seed=3, targets=["q_proj", "v_proj", "down_proj"], fill=False,
                    loss="example_mean", weight_decay=0.01, clip_norm=1.0),
    "dora": dict(base="llama-tied", seed=4, targets=["q_proj", "v_proj", "down_proj"], fill=True, loss="example_mean",
                 weight_decay=0.01, clip_norm=1.0, use_dora=True),
}


def examples(tokenizer: Tokenizer) -> list:
    """(ids, number of label tokens at their end): three instructions, so batches share prefixes."""
    reviews = [("I loved it", "positive"), ("a waste of time", "negative"), ("great value", "positive"),
               ("it broke on day 2", "negative"), ("would buy again", "positive"), ("never again", "negative"),
               ("the best of the year", "positive")]
    words = ["arrow", "quiver", "archer", "target", "library", "adapter", "cluster"]
    sums = [(3, 4), (12, 5), (7, 7), (20, 22), (9, 1), (15, 15)]
    texts = [(f"Is the review positive or negative?\n\nReview: {text}\nAnswer:", f" {label}") for text, label in reviews]
    texts += [(f"Spell the word backwards.\n\nWord: {word}\nAnswer:", f" {word[::-1]}") for word in words]
    texts += [(f"Add the two numbers.\n\n{a} + {b} =", f" {a + b}") for a, b in sums]
    texts += [(texts[0][0], " negative, I think"), (texts[8][0], " x"), ("", "Every token goes to the adapters.")]
    rows = []
    for source, target in texts:
        before = tokenizer.encode(source, add_special_tokens=False).ids or [1]
        after = tokenizer.encode(target, add_special_tokens=False).ids + [EOS]
        rows.append({"ids": before + after, "num_labels": len(after)})
    rows.append({"ids": rows[0]["ids"][:-1], "num_labels": 1})  # one label token, no EOS
    return rows


def batches(tokenizer: Tokenizer, seed: int) -> list:
    rows, generator = examples(tokenizer), random.Random(seed)
    chosen = [generator.sample(rows, BATCH) for _ in range(NUM_STEPS)]
    chosen[0] = rows[:3] + [rows[20], rows[-1], rows[8]]  # whole sources shared
    chosen[3] = chosen[3][:4] + chosen[3][:2]  # the same example twice
    chosen[5] = chosen[5][:1]
    return chosen


def batch_loss(model, batch: list, kind: str) -> torch.Tensor:
    """Cross-entropy of the last num_labels tokens of each example, every example on its own (no padding)."""
    sums, counts = [], []
    for example in batch:
        ids = torch.tensor([example["ids"]])
        n = example["num_labels"]
        logits = model(input_ids=ids).logits[0, -n - 1 : -1]
        sums.append(torch.nn.functional.cross_entropy(logits, ids[0, -n:], reduction="sum"))
        counts.append(n)
    if kind == "example_mean":
        return torch.stack([s / n for s, n in zip(sums, counts)]).mean()
    return torch.stack(sums).sum() / sum(counts)


def train(case: dict, model, data: list) -> tuple[list, dict]:
    """20 steps; per-step numbers, and the gradients (before clipping) of the first and the last step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.999), eps=1e-8,
                                  weight_decay=case["weight_decay"], foreach=False)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.06 * NUM_STEPS), NUM_STEPS)
    steps, gradients = [], {}
    for i, batch in enumerate(data):
        optimizer.zero_grad()
        loss = batch_loss(model, batch, case["loss"])
        loss.backward()
        if i in (0, NUM_STEPS - 1):
            for name, value in model.named_parameters():
                if value.requires_grad:
                    gradients[f"step{i}.{name.replace('.default', '')}"] = value.grad.float().clone()
        norm = torch.nn.utils.clip_grad_norm_(parameters, case["clip_norm"], foreach=False)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        steps.append({"learning_rate": rate, "loss": loss.item(), "grad_norm": norm.item()})
    return steps, gradients


def difference(a: dict, b: dict) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def make(name: str, case: dict, tokenizer: Tokenizer) -> None:
    folder = FOLDER / name
    model = adapters.attach(case["base"], case["seed"], target_modules=case["targets"], lora_dropout=0.0,
                            use_dora=case.get("use_dora", False))
    if case["fill"]:
        adapters.fill(model, case["seed"], spread=0.05)
    adapters.save(model, folder / "initial", case["base"])
    data = batches(tokenizer, case["seed"])
    steps, gradients = train(case, model, data)

    # The same run in fp64 tells how far rounding alone may lead.
    double = common.load_llama(case["base"]).double()
    double = PeftModel.from_pretrained(double, str(folder / "initial"), is_trainable=True).eval()
    for value in double.parameters():
        value.data = value.data.double()
    steps64, gradients64 = train(case, double, data)
    losses = max(abs(a["loss"] - b["loss"]) for a, b in zip(steps, steps64))
    norms = max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(steps, steps64))
    final, final64 = adapters.weights(model), adapters.weights(double)
    print(f"{name}: losses {steps[0]['loss']:.3f} -> {steps[-1]['loss']:.3f}; fp32 against fp64: loss {losses:.1e}, "
          f"norm {norms:.1e} relative, gradients {difference(gradients, gradients64):.1e}, "
          f"weights {difference(final, final64):.1e}")

    common.save_tensors(folder / "final.safetensors", final)
    common.save_tensors(folder / "gradients.safetensors", gradients)
    common.save_json(folder / "run.json", {
        "base": case["base"], "rank": 4, "alpha": 16, "target_modules": case["targets"], "loss": case["loss"],
        "learning_rate": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": case["weight_decay"],
        "clip_norm": case["clip_norm"], "num_steps": NUM_STEPS, "num_warmup_steps": math.ceil(0.06 * NUM_STEPS),
        "steps": steps, "batches": data,
    }, indent=None)


def main() -> None:
    common.single_threaded()
    tokenizer = Tokenizer.from_file(str(common.MODELS / "llama-tied" / "tokenizer.json"))
    for name, case in CASES.items():
        make(name, case, tokenizer)


if __name__ == "__main__":
    main()
