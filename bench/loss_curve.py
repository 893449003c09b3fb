#!/usr/bin/env python3
"""200 optimiser steps of Quiver and of PEFT, from one initial adapter over the same batches (make curve).

    .venv/bin/python bench/loss_curve.py --output bench/results/loss_curve.json

Four tasks of data/train, 100 rows each, batches of 2. PEFT runs in float32; Quiver in float32 and bfloat16, and in float32
with another seed (another initial adapter, other batches), which tells how far apart two equally good runs are.
Losses are compared step by step where batches are the same, and as means over windows of 20 steps.
"""

import argparse
import hashlib
import json
import math
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench/peers"))

TASKS = ["task195_sentiment140_classification", "task363_sst2_polarity_classification", "task591_sciq_answer_generation",
         "task376_reverse_order_of_words"]
ROWS, BATCH, RATE, STEPS, WINDOW = 100, 2, 1e-3, 200, 20
MASK = (1 << 64) - 1


class RandomStream:
    """quiver::RandomStream: a Mersenne Twister of 64 bits, seeded by name."""

    def __init__(self, seed: int, name: str):
        state = [int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")]
        for i in range(1, 312):
            state.append((6364136223846793005 * (state[-1] ^ (state[-1] >> 62)) + i) & MASK)
        self.state, self.at = state, 312

    def next(self) -> int:
        s = self.state
        if self.at == 312:
            for i in range(312):
                x = (s[i] & 0xFFFFFFFF80000000) | (s[(i + 1) % 312] & 0x7FFFFFFF)
                s[i] = s[(i + 156) % 312] ^ (x >> 1) ^ (0xB5026F5AA96619E9 if x & 1 else 0)
            self.at = 0
        x = s[self.at]
        self.at += 1
        x ^= (x >> 29) & 0x5555555555555555
        x ^= (x << 17) & 0x71D67FFFEDA60000
        x ^= (x << 37) & 0xFFF7EEE000000000
        return x ^ (x >> 43)

    def shuffle(self, values: list) -> None:
        for i in range(len(values), 1, -1):
            limit = i * (MASK // i)
            value = self.next()
            while value >= limit:
                value = self.next()
            j = value % i
            values[i - 1], values[j] = values[j], values[i - 1]


def quiver_train(options, library: pathlib.Path, seed: int, dtype: str, *more) -> list:
    command = [options.quiver, "train", "--data", ROOT / "data/train", "--tasks", ",".join(TASKS), "--shared", "curve", "--library", library,
               "--max-examples", ROWS, "--epochs", 1, "--batch-size", BATCH, "--seed", seed, "--dtype", dtype, "--no-chat", "--json",
               *(more or ("--lr", RATE))]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    shown = subprocess.run([str(options.quiver), "library", "show", "--library", str(library), "curve", "--json"], check=True,
                           capture_output=True, text=True)
    return json.loads(shown.stdout.splitlines()[-1])["training"]["losses"]


def peft_train(initial: pathlib.Path, seed: int) -> list:
    """PEFT in float32 from the adapter in `initial`, over the batches that Quiver's seed gives."""
    import peers
    import peft_train as peer
    import torch
    from peft import PeftModel
    from transformers import get_linear_schedule_with_warmup

    options = peers.parser("").parse_args(["--dtype", "fp32", "--threads", "2"])
    options.label_head_only = True
    model, tokenizer = peers.load(options)
    model = PeftModel.from_pretrained(model, str(initial), is_trainable=True).train()
    rows = []
    for name in TASKS:
        task = [r for r in peers.load_jsonl_zst(ROOT / f"data/train/{name}.jsonl.zst") if r["split"] == "train"]
        order = list(range(len(task)))
        RandomStream(seed, f"sample/{name}").shuffle(order)
        rows += [peer.example(tokenizer, task[i], 2048) for i in order[:ROWS]]
    order = list(range(len(rows)))
    RandomStream(seed, "order/curve/0").shuffle(order)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.06 * STEPS), STEPS)
    losses = []
    for step in range(STEPS):
        loss = peer.loss_of(model, [rows[i] for i in order[step * BATCH:(step + 1) * BATCH]], options)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 20 == 19:
            print(f"PEFT: step {step + 1} of {STEPS}, loss {losses[-1]:.3f}", file=sys.stderr)
    return losses


def windows(losses: list) -> list:
    return [sum(losses[at:at + WINDOW]) / WINDOW for at in range(0, len(losses), WINDOW)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiver", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "build/quiver")
    parser.add_argument("--output", type=pathlib.Path, help="also write the losses as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        quiver_train(options, folder / "initial", 42, "float32", "--lr", 1e-30)  # moves nothing: the initial adapter
        curves = {"quiver float32": quiver_train(options, folder / "a", 42, "float32"),
                  "quiver bfloat16": quiver_train(options, folder / "b", 42, "bfloat16"),
                  "quiver float32, other seed": quiver_train(options, folder / "c", 43, "float32"),
                  "peft float32": peft_train(folder / "initial/adapters/curve", 42)}
    assert all(len(curve) == STEPS for curve in curves.values())
    peft = curves["peft float32"]
    print(f"{'mean loss of 20 steps':30}" + "".join(f"{value:7.3f}" for value in windows(peft)) + "  PEFT, float32")
    summary = {}
    for name, curve in curves.items():
        if curve is peft:
            continue
        by_window = [abs(a - b) / b for a, b in zip(windows(curve), windows(peft))]
        summary[name] = {"largest_step": max(abs(a - b) for a, b in zip(curve, peft)), "largest_window": max(by_window),
                         "whole": abs(sum(curve) - sum(peft)) / sum(peft)}
        print(f"{name:30}" + "".join(f"{value:7.3f}" for value in windows(curve)) +
              f"  from PEFT: a window at most {100 * max(by_window):.2f} %, all {100 * summary[name]['whole']:.3f} %")
    if options.output:
        options.output.write_text(json.dumps({"tasks": TASKS, "rows": ROWS, "batch": BATCH, "rate": RATE, "from_peft": summary,
                                              "losses": curves}) + "\n")


if __name__ == "__main__":
    main()
