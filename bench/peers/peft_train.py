"""Peer benchmark: private adapters, one per task, trained by PEFT and transformers.

    .venv/bin/python bench/peers/peft_train.py --tasks task363_sst2_polarity_classification --threads 2

The usual fast way with PEFT on one device: the base frozen in bf16, adapters in fp32 (PEFT's default over a bf16 base),
fused attention, right-padded batches, fused AdamW, no gradient checkpointing, dropout off. By default the head is
applied to every position, as `model(..., labels=...)` does; --label-head-only applies it to the label positions
only, the one large saving a careful user could add by hand. Examples are made as Quiver makes them.

Prints one JSON object. `tokens` counts the tokens of the original examples (no padding), once per epoch; `seconds` is
training only: loading the model, tokenising and validation are left out.
"""

from __future__ import annotations

import math
import random
import time

import peft
import torch
from peft import LoraConfig, get_peft_model
from transformers import get_linear_schedule_with_warmup

import peers

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def arguments():
    parser = peers.parser(__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=[], help="names of tasks of data/train; none: the first ones")
    parser.add_argument("--num-tasks", type=int, default=1, help="how many of the first tasks, without --tasks")
    parser.add_argument("--max-examples", type=int, default=0, help="training rows per task (0: all)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=2048, help="longer examples lose their beginning")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--group-by-length", action="store_true", help="batches of similar length: less padding")
    parser.add_argument("--label-head-only", action="store_true", help="logits at label positions only")
    parser.add_argument("--validate", action="store_true", help="also the mean loss over the validation rows")
    parser.add_argument("--random-length", type=int, default=0, help="three batches of random sequences of this length instead of tasks")
    parser.add_argument("--checkpoint-activations", action="store_true", help="gradient checkpointing")
    return parser.parse_args()


def example(tokenizer, row: dict, max_length: int) -> tuple[list, int]:
    """(ids, number of labels): source and target as one text, EOS at the end, the last tokens are labels."""
    source, target = f"{row['instruction']}\n\n{row['input']}", row["target"]
    if source.endswith(" "):
        source, target = source[:-1], " " + target
    if not source[-1:].isspace() and not target[:1].isspace():
        target = " " + target
    ids = peers.encode(tokenizer, source + target) + [peers.EOS]
    num_labels = len(peers.encode(tokenizer, target)) + 1
    return ids[-max_length:], min(num_labels, min(len(ids), max_length) - 1)


def batches(rows: list, options, generator: random.Random) -> list:
    """One epoch's batches, shuffled."""
    order = list(range(len(rows)))
    generator.shuffle(order)
    if options.group_by_length:
        order.sort(key=lambda i: len(rows[i][0]))
    made = [[rows[i] for i in order[at : at + options.batch]] for at in range(0, len(order), options.batch)]
    if options.group_by_length:
        generator.shuffle(made)
    return made


def loss_of(model, batch: list, options) -> torch.Tensor:
    """Mean over examples of the mean cross-entropy over their label tokens."""
    ids, mask = peers.padded([row for row, _ in batch], options.device)
    labels = torch.full_like(ids, -100)
    for i, (row, n) in enumerate(batch):
        labels[i, len(row) - n : len(row)] = ids[i, len(row) - n : len(row)]
    labels = labels[:, 1:]
    at = (labels != -100).nonzero(as_tuple=True)
    weights = torch.tensor([1 / n for _, n in batch], device=options.device)[at[0]] / len(batch)
    if options.label_head_only:
        inner = model.get_base_model()
        hidden = inner.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = inner.lm_head(hidden[:, :-1][at])
    else:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1][at]
    losses = torch.nn.functional.cross_entropy(logits.float(), labels[at], reduction="none")
    return (losses * weights).sum()


def fresh_adapter(model, seed: int) -> None:
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_lora_parameters"):
            module.reset_lora_parameters("default", True)


def synchronize(options) -> None:
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def train_task(model, rows: list, options) -> dict:
    fresh_adapter(model, options.seed)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0, fused=True)
    steps = math.ceil(len(rows) / options.batch) * options.epochs
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.06 * steps), steps)
    generator, losses, padded = random.Random(options.seed), [], 0
    synchronize(options)
    started = time.perf_counter()
    for _ in range(options.epochs):
        for batch in batches(rows, options, generator):
            loss = loss_of(model, batch, options)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, options.clip_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            padded += len(batch) * max(len(row) for row, _ in batch)
    synchronize(options)
    seconds = time.perf_counter() - started
    losses = [value.item() for value in losses]
    per_epoch = len(losses) // options.epochs
    means = [sum(losses[at : at + per_epoch]) / per_epoch for at in range(0, len(losses), per_epoch)]
    tokens = sum(len(row) for row, _ in rows) * options.epochs
    return {"examples": len(rows), "steps": steps, "tokens": tokens, "padded_tokens": padded,
            "seconds": round(seconds, 3), "epoch_losses": means}


@torch.no_grad()
def mean_loss(model, rows: list, options) -> float:
    model.eval()
    order = sorted(rows, key=lambda row: len(row[0]))
    parts = [order[at : at + options.batch] for at in range(0, len(order), options.batch)]
    return sum(loss_of(model, part, options).item() * len(part) for part in parts) / len(order)


def random_rows(options) -> list:
    """As `quiver bench train` makes them: nothing in common, 32 labels each."""
    generator = random.Random(options.seed)
    return [([generator.randrange(49152) for _ in range(options.random_length)], 32) for _ in range(3 * options.batch)]


def main() -> None:
    options = arguments()
    model, tokenizer = peers.load(options)
    if options.checkpoint_activations:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    config = LoraConfig(task_type="CAUSAL_LM", r=options.rank, lora_alpha=options.alpha, target_modules=TARGETS)
    model = get_peft_model(model, config)
    if options.random_length:
        result = train_task(model, random_rows(options), options)
        peers.report(options, peft=peft.__version__, **result, tokens_per_second=round(result["tokens"] / result["seconds"], 2))
        return
    names = options.tasks or [p.name.removesuffix(".jsonl.zst") for p in sorted((options.data / "train").glob("*.zst"))]
    results = []
    for name in names if options.tasks else names[: options.num_tasks]:
        rows = peers.load_jsonl_zst(options.data / "train" / f"{name}.jsonl.zst")
        split = {part: [example(tokenizer, row, options.max_length) for row in rows if row["split"] == part]
                 for part in ("train", "valid")}
        train = split["train"][: options.max_examples or None]
        result = {"task": name, **train_task(model, train, options)}
        if options.validate:
            result["valid_loss"] = mean_loss(model, split["valid"], options)
        results.append(result)
    tokens, seconds = sum(r["tokens"] for r in results), sum(r["seconds"] for r in results)
    peers.report(options, peft=peft.__version__, tokens=tokens, seconds=round(seconds, 3),
                 tokens_per_second=round(tokens / seconds, 2), tasks=results)


if __name__ == "__main__":
    main()
