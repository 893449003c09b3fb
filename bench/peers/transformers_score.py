"""Peer benchmark: multiple-choice scoring by a plain transformers loop.

    .venv/bin/python bench/peers/transformers_score.py --sets arc_easy piqa --max-per-set 100 --threads 2

Requests are made as lm-eval makes them (context and continuation tokenised as one text), sorted by length and run in
right-padded batches, longest first; every (context, choice) pair is one forward pass over the whole text.

Prints one JSON object: `requests` (pairs), `seconds` (forward passes and scoring; loading and tokenising left
out), `requests_per_second`, and accuracies per set.
"""

from __future__ import annotations

import time

import torch

import peers

SETS = ["arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande"]


def arguments():
    parser = peers.parser(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=SETS, help="sets of data/heldout_mc")
    parser.add_argument("--max-per-set", type=int, default=0, help="questions of each set, from its start (0: all)")
    parser.add_argument("--label-head-only", action="store_true", help="logits at the continuations' positions only")
    return parser.parse_args()


def pairs(row: dict) -> list:
    """(context, continuation) of every choice."""
    if row["mode"] == "partial":
        return [(row["context"] + choice, " " + row["continuation"]) for choice in row["choices"]]
    return [(row["context"], " " + choice) for choice in row["choices"]]


def request(tokenizer, context: str, continuation: str) -> tuple[list, int]:
    """(ids of both, number of the continuation's tokens)."""
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    whole = peers.encode(tokenizer, kept + continuation)
    return whole, len(whole) - len(peers.encode(tokenizer, kept))


@torch.inference_mode()
def score(model, requests: list, options) -> list:
    """Summed log-probability of each request's continuation."""
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i][0]))
    scores = [0.0] * len(requests)
    for at in range(0, len(order), options.batch):
        chosen = order[at : at + options.batch]
        ids, mask = peers.padded([requests[i][0] for i in chosen], options.device)
        if options.label_head_only:
            hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        else:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for b, i in enumerate(chosen):
            length, n = len(requests[i][0]), requests[i][1]
            span = slice(length - n - 1, length - 1)
            rows = model.lm_head(hidden[b, span]) if options.label_head_only else logits[b, span]
            logp = rows.float().log_softmax(dim=1)
            scores[i] = logp.gather(1, ids[b, length - n : length, None]).sum().item()
    return scores


def accuracy(rows: list, scores: list) -> dict:
    """acc and acc_norm (score per character of the choice) in per cent."""
    hits = {"acc": 0, "acc_norm": 0}
    at = 0
    for row in rows:
        own = scores[at : at + len(row["choices"])]
        at += len(own)
        norm = [score / len(choice) for score, choice in zip(own, row["choices"])]
        hits["acc"] += own.index(max(own)) == row["label"]
        hits["acc_norm"] += norm.index(max(norm)) == row["label"]
    return {"questions": len(rows), **{name: round(100 * count / len(rows), 2) for name, count in hits.items()}}


def main() -> None:
    options = arguments()
    model, tokenizer = peers.load(options)
    model.eval()
    results, total_requests, total_seconds, tokens = {}, 0, 0.0, 0
    for name in options.sets:
        rows = peers.load_jsonl_zst(options.data / "heldout_mc" / f"{name}.jsonl.zst")[: options.max_per_set or None]
        requests = [request(tokenizer, *pair) for row in rows for pair in pairs(row)]
        started = time.perf_counter()
        scores = score(model, requests, options)  # item() per request leaves nothing in flight
        seconds = time.perf_counter() - started
        results[name] = {**accuracy(rows, scores), "requests": len(requests), "seconds": round(seconds, 3)}
        total_requests, total_seconds = total_requests + len(requests), total_seconds + seconds
        tokens += sum(len(ids) for ids, _ in requests)
    peers.report(options, requests=total_requests, tokens=tokens, seconds=round(total_seconds, 3),
                 requests_per_second=round(total_requests / total_seconds, 3), sets=results)


if __name__ == "__main__":
    main()
