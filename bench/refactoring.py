#!/usr/bin/env python3
"""Two builds of the program side by side: times and peak memory of training, scoring and decoding.

    bench/refactoring.py BEFORE AFTER [--rounds 5] [--together] [--only NAME ...] [--output FILE]

Runs of the two programs alternate, and the first of a pair changes. With --together the two of a pair run at once: they share the machine, so
that what disturbs one disturbs the other. Their ratio then varies by less than a percent where alternating ones vary by five. Prints medians, and the median ratio of pairs, before / after, with its 95 % interval from the order of the pairs (the sign test): above 1 the new one is faster, and for memory smaller."""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRAIN = ["bench", "train", "--json", "--steps", "3", "--batch-size", "16"]
CASES = {
    "train 16x128, q k v o, rank 4": TRAIN + ["--length", "128", "--target-modules", "q_proj", "k_proj", "v_proj", "o_proj"],
    "train 16x512, q k v o, rank 4": TRAIN + ["--length", "512", "--target-modules", "q_proj", "k_proj", "v_proj", "o_proj"],
    "train 16x128, all-linear, rank 16": TRAIN + ["--length", "128", "--rank", "16", "--target-modules", "all-linear"],
    "routing": ["bench", "routing", "--json", "--rounds", "5"],
    "decode 1 prompt": 1,
    "decode 32 prompts": 32,
}
NEW_TOKENS = 128


def run(program, arguments):
    """-> output, wall seconds, peak MiB."""
    begin = time.monotonic()
    child = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        raise SystemExit(f"{program} {' '.join(arguments)} failed")
    return output, time.monotonic() - begin, usage.ru_maxrss / 1024


def decoding(program, count, folder):
    """Tokens a second of greedy decoding without stops: the difference of a long run and a short one, which share loading and prompts."""
    prompts = folder / f"{count}-{threading.get_ident()}.jsonl"
    words = "one two three four five six seven eight nine ten".split()
    lines = [json.dumps({"prompt": f"Tell a long story about {words[i % 10]} birds and {words[i // 10]} trees."}) for i in range(count)]
    prompts.write_text("\n".join(lines) + "\n")
    seconds = {}
    for tokens in (8, NEW_TOKENS):
        _, seconds[tokens], peak = run(program, ["generate", "--input", str(prompts), "--max-new-tokens", str(tokens)])
    return {"ms a step": (seconds[NEW_TOKENS] - seconds[8]) / (NEW_TOKENS - 8) * 1000}, peak


def measure(program, case, folder):
    if isinstance(case, int):
        return decoding(program, case, folder)
    output, _, peak = run(program, case)
    result = json.loads(output)
    if "tokens_per_second" in result:
        return {"ms a step": result["seconds"]["median"] * 1000}, peak
    return {f"ms, {key}": result[key]["median"] * 1000 for key in ("base", "params", "outputs", "lag")}, peak


def interval(ratios):
    """95 % of the median: of a median, each ratio is above or below with probability 1/2. The whole range if there are too few."""
    ordered, chance, k = sorted(ratios), 0.0, 0
    while True:
        chance += math.comb(len(ordered), k) / 2 ** len(ordered)
        if chance > 0.025:
            break
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[-k]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--output", help="the figures as JSON")
    options = parser.parse_args()
    rows = []

    def show(name, key, before, after):
        ratios = [b / a for a, b in zip(after, before)]
        row = {"work": name, "what": key, "before": statistics.median(before), "after": statistics.median(after), "ratio": statistics.median(ratios)}
        row["low"], row["high"] = interval(ratios)
        rows.append(row)
        print(f"{name:34} {key:12} {row['before']:9.1f} {row['after']:9.1f} {row['ratio']:6.3f}  [{row['low']:.3f}, {row['high']:.3f}]", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            seen = {"before": [], "after": []}
            for i in range(options.rounds):
                pair = [("before", options.before), ("after", options.after)]
                with concurrent.futures.ThreadPoolExecutor(2 if options.together else 1) as pool:
                    runs = {which: pool.submit(measure, program, CASES[name], pathlib.Path(folder)) for which, program in (pair if i % 2 == 0 else pair[::-1])}
                for which, run in runs.items():
                    seen[which].append(run.result())
            for key in seen["before"][0][0]:
                show(name, key, *([rate[key] for rate, _ in seen[which]] for which in ("before", "after")))
            show(name, "peak MiB", *([peak for _, peak in seen[which]] for which in ("before", "after")))
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps({"rounds": options.rounds, "together": options.together, "figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
