#!/usr/bin/env python3
"""Quiver side by side with PEFT and transformers, in one run on one machine (make bench).

Training: private adapters on a fixed sample of tasks, rank 4 on q, k, v, o, batch 16; tokens of the original examples
per second of training, padding not counted, loading left out. Scoring: the multiple-choice sets, requests per second, start
and loading left out on both sides. Peers run twice: as people use them, and with the head
at label positions only, the one large saving a careful user could add by hand. Rounds alternate; medians are shown.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Every twelfth task by name: eight of the 96, whatever their length.
TASKS = sorted(path.name.removesuffix(".jsonl.zst") for path in (ROOT / "data/train").glob("*.jsonl.zst"))[::12]
# Forward of all rows, backward of activations: two products of the frozen weights each, head at labels only.
BODY_PARAMETERS = 30 * (576 * 576 * 2 + 576 * 192 * 2 + 3 * 576 * 1536)


def call(command):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def quiver_training(options, dtype):
    with tempfile.TemporaryDirectory() as folder:
        result = call([options.quiver, "train", "--data", ROOT / "data/train", "--tasks", ",".join(TASKS), "--library", folder + "/library",
                       "--max-examples", options.examples, "--epochs", 1, "--rank", 4, "--alpha", 16, "--dtype", dtype, "--threads", options.threads, "--json"])
    return result["total"]


def peft_training(options, dtype, *more):
    return call([options.python, ROOT / "bench/peers/peft_train.py", "--tasks", *TASKS, "--max-examples", options.examples,
                 "--epochs", 1, "--threads", options.threads, "--dtype", dtype, "--base", options.base, *more])


def quiver_scoring(options):
    """The same questions the peer takes: the first rows of each set, as plain requests through `quiver score`."""
    sys.path.insert(0, str(ROOT / "bench"))
    with tempfile.TemporaryDirectory() as folder:
        requests = pathlib.Path(folder) / "requests.jsonl"
        count = 0
        with requests.open("w") as out:
            for path in sorted((ROOT / "data/heldout_mc").glob("*.jsonl.zst")):
                text = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, text=True, check=True).stdout
                for line in text.splitlines()[:options.questions]:
                    row = json.loads(line)
                    for i, choice in enumerate(row["choices"]):
                        partial = row["mode"] == "partial"
                        context = row["context"] + choice if partial else row["context"]
                        continuation = " " + (row["continuation"] if partial else choice)
                        out.write(json.dumps({"id": f"{row['id']}/{i}", "context": context, "continuation": continuation}) + "\n")
                        count += 1
        one = pathlib.Path(folder) / "one.jsonl"
        one.write_text(requests.read_text().splitlines()[0] + "\n")

        def run(source):
            started = time.monotonic()
            subprocess.run([str(options.quiver), "score", "--input", str(source), "--dtype", "bfloat16", "--threads", str(options.threads)],
                           check=True, capture_output=True)
            return time.monotonic() - started

        start = run(one)  # starting, loading and one request
        seconds = run(requests) - start
    return {"requests": count, "seconds": seconds, "requests_per_second": count / seconds}


def peer_scoring(options, *more):
    return call([options.python, ROOT / "bench/peers/transformers_score.py", "--threads", options.threads, "--dtype", "bf16", "--batch", 16,
                 "--base", options.base, "--max-per-set", options.questions, *more])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiver", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "build/quiver")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--examples", type=int, default=64, help="per task, of 8 tasks")
    parser.add_argument("--questions", type=int, default=40, help="per multiple-choice set, of 7 sets")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=pathlib.Path, help="also write the figures as JSON")
    options = parser.parse_args()
    options.base = call([options.quiver, "fetch", "--json", "--python", options.python])["path"]

    gemm, ours, peft, peft_head, score, peer, peer_head = [], [], [], [], [], [], []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        gemm.append(call([options.quiver, "bench", "gemm", "--dtype", "bfloat16", "--threads", options.threads, "--json"])["gflops"])
        ours.append(quiver_training(options, "bfloat16"))
        peft.append(peft_training(options, "bf16"))
        peft_head.append(peft_training(options, "bf16", "--label-head-only"))
        score.append(quiver_scoring(options))
        peer.append(peer_scoring(options))
        peer_head.append(peer_scoring(options, "--label-head-only"))

    def median(rows, key):
        return statistics.median(row[key] for row in rows)

    rate = statistics.median(gemm)
    mine = median(ours, "tokens_per_second")
    rows_per_second = median(ours, "rows") / median(ours, "seconds")
    share = 4 * BODY_PARAMETERS * rows_per_second / 1e9 / rate
    print(f"\nmachine: {rate:.0f} GFLOP/s of bf16 products, {options.threads} threads")
    print(f"{'training, tokens/s of the original examples':58} {'rate':>8} {'Quiver is':>10}")
    print(f"{'  Quiver':58} {mine:8.0f}")
    print(f"{'  PEFT + transformers':58} {median(peft, 'tokens_per_second'):8.0f} {mine / median(peft, 'tokens_per_second'):9.1f}x")
    print(f"{'  PEFT + transformers, head at labels only':58} {median(peft_head, 'tokens_per_second'):8.0f} {mine / median(peft_head, 'tokens_per_second'):9.1f}x")
    print(f"  rows computed: {rows_per_second:.0f}/s of {mine:.0f} tokens/s; their products take {100 * share:.0f} % of the machine's rate (head left out)")
    s = median(score, "requests_per_second")
    print(f"{'scoring multiple choice, requests/s':58} {'rate':>8} {'Quiver is':>10}")
    print(f"{'  Quiver':58} {s:8.1f}")
    print(f"{'  transformers, batches of 16':58} {median(peer, 'requests_per_second'):8.1f} {s / median(peer, 'requests_per_second'):9.1f}x")
    print(f"{'  transformers, head at continuations only':58} {median(peer_head, 'requests_per_second'):8.1f} {s / median(peer_head, 'requests_per_second'):9.1f}x")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"gemm_gflops": gemm, "quiver_training": ours, "peft": peft, "peft_label_head": peft_head, "quiver_scoring": score,
                                              "transformers": peer, "transformers_label_head": peer_head}, indent=1) + "\n")


if __name__ == "__main__":
    main()
