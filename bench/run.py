#!/usr/bin/env python3
"""Quiver side by side with PEFT and transformers, in one run on one machine (make bench).

Parts, all of them or those named by --only:

  training   private adapters on a fixed sample of tasks, rank 4 on q, k, v, o, batch 16, bfloat16: tokens of the original
             examples per second of training, padding not counted, loading left out; and variants of it
             (a CPU that does not multiply bfloat16 computes this and all below in float32, peers too)
  float32    the same in float32, on a quarter of the examples
  memory     the most memory that a process holds which trains on batches of 16 x 512 random tokens, and its seconds a step
  start      from the command to the first step, between two tasks, and 96 adapters in one process against 96 processes
  scoring    the multiple-choice sets, requests per second, start and loading left out on both sides
  tokens     encoding the data pack's training texts by SmolLM2's vocabulary and by two of SentencePiece's kind, one thread, loading left out
  families   optimiser steps of models of bench/specs, of SmolLM2's size and random weights: the rate by their operations, against Llama's
  opening    the most memory that a program holds which opens a model of 1.1 GiB in bfloat16 and scores a text
  busy       training, scoring, evaluation and decoding, alone, beside a busy process per core, and as three copies at once

Peers run as people use them, and with the head at label positions only, the one large saving a careful user could add
by hand. Rounds alternate; medians are shown.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALL_TASKS = sorted(path.name.removesuffix(".jsonl.zst") for path in (ROOT / "data/train").glob("*.jsonl.zst"))
TASKS = ALL_TASKS[::12]  # eight of the 96 by name, whatever their length
# SmolLM2-135M's linear maps. Forward of all rows, backward to the activations: two products of the frozen weights each.
BODY_PARAMETERS = 30 * (576 * 576 * 2 + 576 * 192 * 2 + 3 * 576 * 1536)
PARTS = ("training", "float32", "memory", "start", "scoring", "tokens", "families", "opening", "busy")


def call(command):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Bench:
    """What a round runs. Every method returns {name of a figure: value}."""

    def __init__(self, options):
        self.options = options
        self.base = call([options.quiver, "fetch", "--json", "--python", options.python])["path"]
        self.about = self.quiver_bench("gemm")["machine"]
        has_bfloat16 = self.about["bf16 in hardware"] == "yes"
        self.dtype, self.peer_dtype = ("bfloat16", "bf16") if has_bfloat16 else ("float32", "fp32")

    def quiver_train(self, *more, tasks=TASKS, examples=None, dtype=None):
        with tempfile.TemporaryDirectory() as folder:
            return call([self.options.quiver, "train", "--base", self.base, "--data", ROOT / "data/train", "--tasks", ",".join(tasks),
                         "--library", folder + "/library", "--max-examples", examples or self.options.examples, "--epochs", 1,
                         "--dtype", dtype or self.dtype, "--threads", self.options.threads, "--no-chat", "--paper", "--json", *more])

    def quiver_bench(self, *arguments):
        return call([self.options.quiver, "bench", *arguments, "--threads", self.options.threads, "--json"])

    def peft_train(self, *more, tasks=TASKS, examples=None, dtype=None):
        return call([self.options.python, ROOT / "bench/peers/peft_train.py", "--tasks", *tasks, "--max-examples",
                     examples or self.options.examples, "--epochs", 1, "--threads", self.options.threads, "--dtype", dtype or self.peer_dtype,
                     "--base", self.base, *more])

    def machine(self):
        return {"gemm": self.quiver_bench("gemm", "--dtype", self.dtype)["gflops"],
                "gemm_float32": self.quiver_bench("gemm", "--dtype", "float32")["gflops"]}

    def training(self):
        total = self.quiver_train()["total"]
        rate = "tokens_per_second"
        return {"quiver": total[rate],
                "quiver_rows": total["rows"] / total["seconds"],
                "peft": self.peft_train()[rate],
                "peft_label_head": self.peft_train("--label-head-only")[rate],
                "quiver_unshared": self.quiver_train("--share-prefixes", "off")["total"][rate],
                "quiver_rank16_all": self.quiver_train("--rank", 16, "--target-modules", "all-linear")["total"][rate]}

    def float32(self):
        few = max(self.options.examples // 4, 1)
        return {"quiver": self.quiver_train(examples=few, dtype="float32")["total"]["tokens_per_second"],
                "peft": self.peft_train(examples=few, dtype="fp32")["tokens_per_second"]}

    def memory(self):
        shape = ("--batch-size", 16, "--length", 512, "--dtype", self.dtype, "--steps", 3, "--base", self.base)
        figures = {}
        for name, more in (("quiver", ()), ("quiver_checkpointed", ("--checkpoint-activations",))):
            result = self.quiver_bench("train", *shape, *more)
            figures |= {f"{name}_bytes": result["peak_bytes"], f"{name}_seconds": result["seconds"]["median"]}
        peer = ("--random-length", 512)
        for name, more in (("peft", ()), ("peft_label_head", ("--label-head-only",)),
                           ("peft_checkpointed", ("--label-head-only", "--checkpoint-activations"))):
            result = self.peft_train(*peer, *more, tasks=())
            figures |= {f"{name}_bytes": result["peak_bytes"], f"{name}_seconds": result["seconds"] / result["steps"]}
        return figures

    def start(self):
        def wall(tasks):
            started = time.monotonic()
            result = self.quiver_train(tasks=tasks, examples=4)
            return time.monotonic() - started, result

        alone = [wall([task]) for task in ALL_TASKS]
        together, result = wall(ALL_TASKS)
        return {"to_first_step": statistics.median(seconds - one["total"]["seconds"] for seconds, one in alone),
                "between_tasks": statistics.median(a["overhead_seconds"] for a in result["adapters"]),
                "one_process": together,
                "many_processes": sum(seconds for seconds, _ in alone)}

    def questions(self):
        """The questions that the peer takes: the first rows of each set, as plain requests."""
        for path in sorted((ROOT / "data/heldout_mc").glob("*.jsonl.zst")):
            text = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, text=True, check=True).stdout
            for line in text.splitlines()[:self.options.questions]:
                row = json.loads(line)
                for i, choice in enumerate(row["choices"]):
                    partial = row["mode"] == "partial"
                    yield {"id": f"{row['id']}/{i}", "context": row["context"] + choice if partial else row["context"],
                           "continuation": " " + (row["continuation"] if partial else choice)}

    def scoring(self):
        requests = [json.dumps(request) + "\n" for request in self.questions()]

        def run(lines):
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
                file.writelines(lines)
                file.flush()
                started = time.monotonic()
                subprocess.run([str(self.options.quiver), "score", "--no-chat", "--base", self.base, "--input", file.name, "--dtype", self.dtype,
                                "--threads", str(self.options.threads)], check=True, capture_output=True)
                return time.monotonic() - started

        start = run(requests[:1])  # starting, loading and one request
        figures = {"quiver": len(requests) / (run(requests) - start)}
        for name, more in (("transformers", ()), ("transformers_label_head", ("--label-head-only",))):
            figures[name] = call([self.options.python, ROOT / "bench/peers/transformers_score.py", "--threads", self.options.threads,
                                  "--dtype", self.peer_dtype, "--batch", 16, "--base", self.base, "--max-per-set", self.options.questions,
                                  *more])["requests_per_second"]
        return figures

    def vocabularies(self):
        """name -> file, those that scripts/setup.sh --test could fetch."""
        folder = pathlib.Path(self.base).parent
        files = {"smollm2": pathlib.Path(self.base), "mistral": folder / "vocabularies/llama2/tokenizer.json",
                 "gemma3": folder / "vocabularies/gemma3/tokenizer.json"}
        return {name: file for name, file in files.items() if file.exists()}

    def texts(self):
        """The strings of the training files' first rows, a JSON string each."""
        for task in ALL_TASKS:
            text = subprocess.run(["zstd", "-dc", str(ROOT / f"data/train/{task}.jsonl.zst")], capture_output=True, text=True, check=True).stdout
            for line in text.splitlines()[:60]:
                yield from (json.dumps(value) + "\n" for value in json.loads(line).values() if isinstance(value, str))

    def tokens(self):
        lines = list(self.texts())
        megabytes = sum(len(json.loads(line).encode()) for line in lines) / 1e6

        def seconds(file, some):
            started = time.monotonic()
            subprocess.run([str(self.options.quiver), "tokenize", "--base", str(file), "--json-lines"], input="".join(some).encode(),
                           check=True, capture_output=True)
            return time.monotonic() - started

        figures = {}
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.writelines(lines)
            file.flush()
            for name, path in self.vocabularies().items():
                # Quiver's time has reading and writing JSON in it, the peer's has not.
                figures[f"{name}_quiver"] = megabytes / (seconds(path, lines) - seconds(path, lines[:1]))
                figures[f"{name}_tokenizers"] = call([self.options.python, ROOT / "bench/peers/tokenizers_encode.py", "--tokenizer", path,
                                                      "--texts", file.name])["megabytes_per_second"]
        return figures

    def families(self):
        figures = {}
        for spec in sorted((ROOT / "bench/specs").glob("*.json")):
            result = self.quiver_bench("train", "--spec", spec, "--dtype", self.dtype, "--steps", 5)
            figures |= {f"{spec.stem}_gflops": result["gflops_with_attention"], f"{spec.stem}_tokens": result["tokens_per_second"]}
        return figures

    def opening(self):
        with tempfile.TemporaryDirectory() as folder:
            size = call([self.options.python, ROOT / "bench/peers/random_llama.py", folder])["bytes"]
            shutil.copy(ROOT / "tests/golden/model/llama-tied/tokenizer.json", folder)
            request = pathlib.Path(folder) / "one.jsonl"
            request.write_text(json.dumps({"context": "read the", "continuation": " review"}) + "\n")
            done = subprocess.Popen([str(self.options.quiver), "score", "--no-chat", "--base", folder, "--dtype", "bfloat16", "--input", str(request)],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(done.pid, 0)
            if status != 0:
                sys.exit("failed: opening")
            return {"model_bytes": size, "quiver_bytes": usage.ru_maxrss * 1024}

    def busy_jobs(self, folder):
        """name -> command, each some seconds long alone; `{copy}` in a path is replaced by the copy's number."""
        requests = folder / "requests.jsonl"
        requests.write_text("".join(json.dumps(request) + "\n" for request in self.questions()))
        data = ROOT / "data"
        base = ["--base", self.base, "--dtype", self.dtype, "--threads", self.options.threads]
        return {"training": ["train", *base, "--data", data / "train", "--tasks", ",".join(TASKS[:3]), "--library", folder / "library-{copy}",
                             "--max-examples", self.options.examples, "--epochs", 1, "--no-chat", "--paper"],
                "scoring": ["score", *base, "--no-chat", "--input", requests],
                "evaluation": ["eval", *base, "--methods", "base", "--tasks", "sni", "--limit", 2, "--max-new-tokens", 32],
                "decoding": ["generate", *base, "--no-chat", "--prompt", "The archer drew the bow and", "--max-new-tokens", 64]}

    def busy(self):
        def wall(command, copies=1):
            with tempfile.TemporaryDirectory() as folder:
                jobs = self.busy_jobs(pathlib.Path(folder))
                started = time.monotonic()
                running = [subprocess.Popen([str(self.options.quiver), *(str(word).replace("{copy}", str(copy)) for word in jobs[command])],
                                            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for copy in range(copies)]
                if any(job.wait() != 0 for job in running):
                    sys.exit(f"failed: {command}")
                return time.monotonic() - started

        figures = {}
        for name in ("training", "scoring", "evaluation", "decoding"):
            figures[f"{name}_alone"] = wall(name)
            neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.options.threads)]
            try:
                figures[f"{name}_beside"] = wall(name)
            finally:
                for neighbour in neighbours:
                    neighbour.kill()
                    neighbour.wait()
            figures[f"{name}_copies"] = wall(name, copies=3)
        return figures


def show(title, unit, lines, mine):
    """Lines (name, value, is a peer): a peer's comes with how many times of it we are."""
    print(f"{title + ', ' + unit:62} {'':>8} {'Quiver is':>10}")
    for name, value, is_peer in lines:
        ratio = f"{mine / value:9.1f}x" if is_peer else ""
        print(f"{'  ' + name:62} {value:8.1f} {ratio}".rstrip())


def show_training(f, gemm, dtype):
    show(f"training in {dtype}", "tokens/s", [
        ("Quiver", f["quiver"], False), ("PEFT + transformers", f["peft"], True),
        ("PEFT + transformers, head at labels only", f["peft_label_head"], True)], f["quiver"])
    share = 4 * BODY_PARAMETERS * f["quiver_rows"] / 1e9 / gemm
    print(f"    of {gemm:.0f} GFLOP/s of plain {dtype} products Quiver's take {100 * share:.0f} % (head left out): {f['quiver_rows']:.0f} rows/s")
    unshared = 4 * BODY_PARAMETERS * f["quiver_unshared"] / 1e9 / gemm
    show("  nothing shared (--share-prefixes off)", "tokens/s", [
        ("Quiver", f["quiver_unshared"], False), ("PEFT + transformers", f["peft"], True)], f["quiver_unshared"])
    print(f"    of plain {dtype} products {100 * unshared:.0f} %")
    print(f"{'  rank 16 on all seven linear maps':62} {f['quiver_rank16_all']:8.1f} {100 * (1 - f['quiver_rank16_all'] / f['quiver']):8.0f} % less")


def show_memory(f, dtype):
    print(f"{'training on 16 x 512 tokens, ' + dtype:62} {'MiB':>8} {'s a step':>10}")
    for key, name in (("quiver", "Quiver"), ("quiver_checkpointed", "Quiver, --checkpoint-activations"), ("peft", "PEFT + transformers"),
                      ("peft_label_head", "PEFT, head at labels only"),
                      ("peft_checkpointed", "PEFT, head at labels only, gradient checkpointing")):
        print(f"{'  ' + name:62} {f[key + '_bytes'] / 2**20:8.0f} {f[key + '_seconds']:10.2f}")


def show_start(f):
    print(f"{'start of training':62} {'seconds':>8}")
    print(f"{'  from the command to the first step, and exit':62} {f['to_first_step']:8.2f}")
    print(f"{'  between two tasks of one run':62} {f['between_tasks']:8.3f}")
    print(f"{'  96 adapters on 4 examples each, one process':62} {f['one_process']:8.1f}")
    print(f"{'  96 adapters, 96 processes':62} {f['many_processes']:8.1f} {f['many_processes'] / f['one_process']:9.1f}x")


def show_tokens(f):
    for name, title in (("smollm2", "SmolLM2, bytes"), ("mistral", "Mistral, SentencePiece"), ("gemma3", "Gemma 3, SentencePiece")):
        if f"{name}_quiver" not in f:
            print(f"encoding, {title}: not measured, its vocabulary was not fetched")
            continue
        show(f"encoding, {title}, one thread", "MB/s", [("Quiver", f[f"{name}_quiver"], False), ("tokenizers", f[f"{name}_tokenizers"], True)],
             f[f"{name}_quiver"])


def show_families(f):
    names = sorted(key.removesuffix("_gflops") for key in f if key.endswith("_gflops"))
    print(f"{'training steps on 16 x 512 tokens, by architecture':62} {'GFLOP/s':>8} {'of Llama':>10} {'tokens/s':>10}")
    for name in names:
        print(f"{'  ' + name:62} {f[name + '_gflops']:8.0f} {100 * f[name + '_gflops'] / f['llama_gflops']:8.0f} % {f[name + '_tokens']:10.0f}")


def show_opening(f):
    ratio = f["quiver_bytes"] / f["model_bytes"]
    print(f"{'opening a model in bfloat16 and scoring a text':62} {f['quiver_bytes'] / 2**20:6.0f} MiB, {ratio:.2f} times its weights")


def show_busy(f, threads):
    print(f"{'on a busy machine':40} {'alone, s':>9} {f'beside {threads} busy':>15} {'three copies':>15}")
    for name in ("training", "scoring", "evaluation", "decoding"):
        alone, beside, copies = (f[f"{name}_{state}"] for state in ("alone", "beside", "copies"))
        print(f"{'  ' + name:40} {alone:9.1f} {beside:8.1f} {beside / alone:5.1f}x {copies:8.1f} {copies / alone:5.1f}x")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiver", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "build/quiver")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--examples", type=int, default=64, help="per task, of 8 tasks")
    parser.add_argument("--questions", type=int, default=40, help="per multiple-choice set, of 7 sets")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=pathlib.Path, help="also write the figures of every round as JSON")
    options = parser.parse_args()
    bench = Bench(options)

    rounds = []
    for number in range(options.rounds):
        rounds.append({})
        for part in ("machine", *options.only):
            print(f"round {number + 1} of {options.rounds}: {part}", file=sys.stderr)
            rounds[-1][part] = getattr(bench, part)()
    medians = {part: {name: statistics.median(r[part][name] for r in rounds) for name in rounds[0][part]} for part in rounds[0]}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"machine": bench.about, "dtype": bench.dtype, "medians": medians, "rounds": rounds}, indent=1) + "\n")

    print(f"\n{options.threads} threads; medians of {options.rounds}")
    if "training" in medians:
        show_training(medians["training"], medians["machine"]["gemm"], bench.dtype)
    if "float32" in medians:
        f = medians["float32"]
        show("training in float32", "tokens/s", [("Quiver", f["quiver"], False), ("PEFT + transformers", f["peft"], True)], f["quiver"])
    if "memory" in medians:
        show_memory(medians["memory"], bench.dtype)
    if "start" in medians:
        show_start(medians["start"])
    if "scoring" in medians:
        f = medians["scoring"]
        show(f"scoring multiple choice in {bench.dtype}", "requests/s", [
            ("Quiver", f["quiver"], False), ("transformers, batches of 16", f["transformers"], True),
            ("transformers, head at continuations only", f["transformers_label_head"], True)], f["quiver"])
    if "tokens" in medians:
        show_tokens(medians["tokens"])
    if "families" in medians:
        show_families(medians["families"])
    if "opening" in medians:
        show_opening(medians["opening"])
    if "busy" in medians:
        show_busy(medians["busy"], options.threads)


if __name__ == "__main__":
    main()
