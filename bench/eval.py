"""`quiver eval` beside lm-evaluation-harness: the same rows, the same base, one run.

    .venv/bin/python bench/eval.py [--rows 200] [--threads 2] [--dtype fp32] [--only agreement tiny answers text speed methods] [--output FOLDER]

Parts:

  agreement    log-likelihoods of every option, acc and acc_norm of every question, of the seven multiple-choice sets: bare and with chat template
  tiny         the same of two tiny models, one of which wants BOS
  answers      greedy answers up to stop strings, bare and with chat template
  text         log-likelihoods and perplexities of texts of the repository, longer than the context: of the tiny models, and of the base
  speed        seconds of both over the seven sets (end to end: with loading), each with its best batch of those tried
  methods      what a second method costs on the same base

Writes eval.json and eval.md into the folder (default: runs/bench-eval). Peers take `scripts/setup.sh --test` first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUIVER = ROOT / "build/quiver"
PYTHON = ROOT / ".venv/bin/python"
SETS = ["arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande"]
ANSWERS = ["task1195_disflqa_disfluent_to_fluent_conversion", "task957_e2e_nlg_text_generation_generate"]
TIE = 2e-3  # log-likelihoods that are closer may change places by rounding


def rows_of(path: Path) -> list:
    text = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout.decode()
    return [json.loads(line) for line in text.splitlines()]


def write_pack(folder: Path, rows: int) -> None:
    """The first rows of every set and of the tasks of answers, as one pack for both."""
    for kind, names in (("heldout_mc", SETS), ("heldout_sni", ANSWERS)):
        (folder / kind).mkdir(parents=True)
        for name in names:
            some = [row for row in rows_of(ROOT / f"data/{kind}/{name}.jsonl.zst") if row["split"] != "train" or kind == "heldout_mc"][:rows]
            if kind == "heldout_sni":
                some = [row | {"split": "test", "source": row["instruction"] + "\n\n" + row["input"]} for row in some]
            with open(folder / kind / f"{name}.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in some)


def quiver_eval(options, pack: Path, tasks: str, *more, dtype: str | None = None) -> tuple[float, dict]:
    """Seconds from start to end, and the samples by (method, task, id)."""
    return quiver_document(options, pack, tasks, *more, dtype=dtype)[:2]


def quiver_document(options, pack: Path, tasks: str, *more, dtype: str | None = None) -> tuple[float, dict, dict]:
    """The same, and the whole document."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.json"
        command = [QUIVER, "eval", "--data", pack, "--tasks", tasks, "--dtype", dtype or {"fp32": "float32", "bf16": "bfloat16"}[options.dtype],
                   "--base-weights", "dense", "--threads", options.threads, "--output", out, *more]
        start = time.perf_counter()
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        seconds = time.perf_counter() - start
        document = json.loads(out.read_text())
    return seconds, {(sample["method"], sample["task"], sample["id"]): sample for sample in document["samples"]}, document


def harness(options, pack: Path, *more, batch: int = 16, dtype: str | None = None) -> tuple[float, dict]:
    """Seconds of the whole process, and what it printed."""
    command = [PYTHON, ROOT / "bench/peers/lm_eval_run.py", "--pack", pack, "--dtype", dtype or options.dtype, "--threads", options.threads, "--batch", batch,
               *more]
    start = time.perf_counter()
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def best_of(values: list) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def is_tie(scores: list) -> bool:
    ordered = sorted(scores, reverse=True)
    return len(ordered) > 1 and ordered[0] - ordered[1] < TIE


def compare_choices(ours: dict, theirs: dict) -> dict:
    """The largest difference of a log-likelihood, and the questions whose acc or acc_norm differ, ties apart."""
    largest, questions, differ, ties = 0.0, 0, [], 0
    for task, samples in theirs["samples"].items():
        for sample in samples:
            own = ours["base", task, sample["id"]]
            questions += 1
            differences = [abs(a - b) for a, b in zip(own["log_probs"], sample["responses"], strict=True)]
            largest = max(largest, *differences)
            for metric in ("acc", "acc_norm") if task != "winogrande" else ("acc",):  # the harness divides by the length of the common continuation
                if own[metric] == sample[metric]:
                    continue
                if is_tie(own["log_probs"]):
                    ties += 1
                else:
                    differ.append(f"{task} {sample['id']} {metric}")
    return {"questions": questions, "largest difference": largest, "differ": differ, "ties": ties}


def agreement(options, pack: Path) -> dict:
    found = {}
    for form, ours, theirs in (("bare", ["--no-chat"], []), ("chat", ["--chat"], ["--chat"])):
        _, own = quiver_eval(options, pack, ",".join(SETS), *ours, dtype="float32")
        _, peer = harness(options, pack, "--sets", *SETS, *theirs, dtype="fp32")
        found[form] = compare_choices(own, peer)
        print(form, found[form], file=sys.stderr)
    return found


def tiny_bases(folder: Path, context: int = 4096) -> dict:
    """A tiny Llama with room for `context` tokens, and one whose tokenizer puts BOS first."""
    bases = {}
    for name in ("plain", "bos"):
        base = folder / name
        shutil.copytree(ROOT / "tests/golden/model/llama-tied", base)
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
        if name == "bos":
            tokenizer = json.loads((base / "tokenizer.json").read_text())
            bos = json.loads((base / "tokenizer_config.json").read_text())["bos_token"]
            bos = bos["content"] if isinstance(bos, dict) else bos
            number = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == bos)
            special, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
            tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [special, text], "pair": [special, text, {"Sequence": {"id": "B", "type_id": 1}}],
                                           "special_tokens": {bos: {"id": bos, "ids": [number], "tokens": [bos]}}}
            (base / "tokenizer.json").write_text(json.dumps(tokenizer))
        bases[name] = base
    return bases


def tiny(options, pack: Path) -> dict:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, base in tiny_bases(Path(folder)).items():
            _, own = quiver_eval(options, pack, ",".join(SETS), "--base", base, "--no-chat", dtype="float32")
            _, peer = harness(options, pack, "--sets", *SETS, "--folder", base, dtype="fp32")
            found[name] = compare_choices(own, peer)
            print("tiny", name, found[name], file=sys.stderr)
    return found


def answers(options, pack: Path) -> dict:
    """Greedy answers: the same text up to the stop string, but where the two likeliest tokens are as good as equal."""
    found = {}
    tasks = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ANSWERS:  # the stop string is in a task file, and lm-eval's
            file = Path(folder) / f"{name}.yaml"
            file.write_text(f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {pack}/heldout_sni/{name}.jsonl}}}}\ntest_split: test\n"
                            'output_type: generate_until\ndoc_to_text: "{{source}}"\ndoc_to_target: "{{target}}"\n'
                            'generation_kwargs: {until: ["\\n\\n", "."], max_gen_toks: 32, do_sample: false}\nmetric_list: [{metric: exact_match}]\n')
            tasks.append(str(file))
        for form, ours, theirs in (("bare", ["--no-chat"], []), ("chat", ["--chat"], ["--chat"])):
            _, own = quiver_eval(options, pack, ",".join(tasks), *ours, dtype="float32")
            _, peer = harness(options, pack, "--answers", *ANSWERS, "--until", "\n\n", ".", *theirs, dtype="fp32")
            same = total = 0
            for task, samples in peer["samples"].items():
                for sample in samples:
                    total += 1
                    same += own["base", task, sample["id"]]["prediction"].strip() == sample["responses"][0].strip()
            found[form] = {"answers": total, "same": same}
            print("answers", form, found[form], file=sys.stderr)
    return found


def texts_of_repository() -> list:
    files = ["LICENSE", "docs/formats.md", "docs/results.md", "data/heldout_gen/LICENSE-mbpp-mirror"]
    return [{"id": name, "text": (ROOT / name).read_text(encoding="utf-8")} for name in files if (ROOT / name).is_file()]


def compare_texts(own: dict, found: dict, peer: dict) -> dict:
    """Relative differences of log-likelihoods, and of the figures over all texts."""
    rows = {}
    for sample in peer["samples"]["texts"]:
        mine = own["base", "texts", sample["id"]]
        rows[sample["id"]] = abs(mine["log_likelihood"] - sample["responses"][0]) / abs(sample["responses"][0])
    figures = {row["metric"]: row["mean"] for row in found["per_task"]}
    theirs = {name: peer["results"]["texts"][name + ",none"] for name in figures}
    return {"texts": len(rows), "tokens": sum(sample["num_tokens"] for sample in own.values()), "largest difference of a log-likelihood": max(rows.values()),
            **{f"difference of {name}": abs(figures[name] - theirs[name]) / theirs[name] for name in figures},
            "bits_per_byte": figures["bits_per_byte"]}


def text(options, pack: Path) -> dict:
    (pack / "texts").mkdir(exist_ok=True)
    file = pack / "texts/texts.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in texts_of_repository()), encoding="utf-8")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        bases = {"tiny " + name: (["--base", base], ["--folder", base, "--max-length", 256]) for name, base in tiny_bases(Path(folder), context=256).items()}
        for name, (ours, theirs) in (bases | {"base": ([], ["--max-length", options.context])}).items():
            if name == "base" and not options.context:
                continue
            _, own, document = quiver_document(options, pack, str(file), *ours, "--no-chat", dtype="float32")
            _, peer = harness(options, pack, "--texts", "texts", *theirs, batch=1, dtype="fp32")
            found[name] = compare_texts(own, document, peer)
            print("text", name, found[name], file=sys.stderr)
    return found


def speed(options, pack: Path) -> dict:
    seconds, _ = zip(*(quiver_eval(options, pack, ",".join(SETS), "--no-chat") for _ in range(options.rounds)), strict=True)
    peers = {batch: harness(options, pack, "--sets", *SETS, batch=batch)[0] for batch in options.batches}
    batch = min(peers, key=peers.get)
    return {"quiver seconds": statistics.median(seconds), "harness seconds": peers[batch], "harness batch": batch, "batches": peers,
            "ratio": peers[batch] / statistics.median(seconds)}


def methods(options, pack: Path) -> dict:
    if not options.library:
        return {}
    alone, _ = quiver_eval(options, pack, ",".join(SETS), "--no-chat")
    both, _ = quiver_eval(options, pack, ",".join(SETS), "--no-chat", "--library", options.library, "--methods", "base,private-mean")
    return {"base alone": alone, "base and private-mean": both, "second by first": (both - alone) / alone}


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown"


def table(found: dict) -> str:
    lines = [f"# quiver eval beside lm-evaluation-harness\n\n{found['machine']}; {found['threads']} threads; {found['rows']} rows of each set at most.\n"]
    for part in ("agreement", "tiny", "answers", "text", "speed", "methods"):
        if part not in found:
            continue
        lines.append(f"## {part}\n")
        for name, value in found[part].items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {len(one) if isinstance(one, list) else one if isinstance(one, int) else format(one, '.3g')}" for key, one in value.items())
            elif isinstance(value, float):
                value = format(value, ".3g")
            lines.append(f"- {name}: {value}")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16", help="of the part speed")
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 16, 32], help="of the harness, in the part speed")
    parser.add_argument("--context", type=int, default=8192, help="the base's, in the part text; 0 leaves the base out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--library", type=Path, help="for the part methods")
    parser.add_argument("--only", nargs="*", default=["agreement", "tiny", "answers", "text", "speed", "methods"])
    parser.add_argument("--output", type=Path, default=ROOT / "runs/bench-eval")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = {"machine": cpu(), "threads": options.threads, "rows": options.rows, "dtype": options.dtype}
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder)
        write_pack(pack, options.rows)
        for part in options.only:
            found[part] = globals()[part](options, pack)
            (options.output / "eval.json").write_text(json.dumps(found, indent=1) + "\n")
            (options.output / "eval.md").write_text(table(found) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
