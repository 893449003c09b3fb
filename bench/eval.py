"""`quiver eval` beside lm-evaluation-harness: the same rows, the same base, one run.

    .venv/bin/python bench/eval.py [--rows 200] [--threads 2] [--dtype fp32] [--only PART ...] [--output FOLDER]

Parts:

  agreement    log-likelihoods of every option, acc and acc_norm of every question, of the seven multiple-choice sets: bare and with chat template
  tiny         the same of two tiny models, one of which wants BOS
  answers      greedy answers up to stop strings, bare and with chat template
  text         log-likelihoods and perplexities of texts of the repository, longer than the context: of the tiny models, and of the base
  speed        seconds of both over the seven sets (end to end: with loading), each with its best batch of those tried
  few_shot     seconds of both over the questions of BBH with three solved examples before each, and whether they agree
  generation   seconds of both over greedy answers to the instruction tasks, 32 tokens at most, and how many are the same
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
PARTS = ["agreement", "tiny", "answers", "text", "speed", "few_shot", "generation", "methods"]
FORMS = {"bare": (["--no-chat"], []), "chat": (["--chat"], ["--chat"])}  # what both are told
TIE = 2e-3  # log-likelihoods that are closer may change places by rounding


def rows_of(path: Path) -> list:
    text = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout.decode()
    return [json.loads(line) for line in text.splitlines()]


def instruction_tasks() -> list:
    return sorted(path.name.removesuffix(".jsonl.zst") for path in (ROOT / "data/heldout_sni").glob("*.jsonl.zst"))


def write_pack(folder: Path, rows: int) -> None:
    """The first rows of every set and of the instruction tasks, as one pack for both."""
    for kind, names in (("heldout_mc", SETS), ("heldout_sni", instruction_tasks())):
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
    largest, where, questions, differ, ties, above = 0.0, {}, 0, [], 0, 0
    for task, samples in theirs["samples"].items():
        for sample in samples:
            own = ours["base", task, sample["id"]]
            questions += 1
            differences = [abs(a - b) for a, b in zip(own["log_probs"], sample["responses"], strict=True)]
            above += max(differences) > TIE
            if max(differences) > largest:
                largest, where = max(differences), {"task": task, "id": sample["id"], "quiver": own["log_probs"], "harness": sample["responses"]}
            for metric in ("acc", "acc_norm") if task != "winogrande" else ("acc",):  # the harness divides by the length of the common continuation
                if own[metric] == sample[metric]:
                    continue
                if is_tie(own["log_probs"]):
                    ties += 1
                else:
                    differ.append(f"{task} {sample['id']} {metric}")
    return {"questions": questions, "largest difference": largest, f"with a difference above {TIE}": above, "differ": differ, "ties": ties, "largest": where}


def agreement(options, pack: Path) -> dict:
    found = {}
    for form in options.forms:
        ours, theirs = FORMS[form]
        _, own = quiver_eval(options, pack, ",".join(SETS), *ours, dtype="float32")
        _, peer = harness(options, pack, "--sets", *SETS, *theirs, dtype="fp32", batch=options.agreement_batch)
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


def write_answer_tasks(pack: Path, folder: Path, names: list, until: list) -> str:
    """Task files of lm-eval's form, which hold the stop strings; named as `--tasks` wants them."""
    for name in names:
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {pack}/heldout_sni/{name}.jsonl}}}}\ntest_split: test\n"
            'output_type: generate_until\ndoc_to_text: "{{source}}"\ndoc_to_target: "{{target}}"\n'
            f"generation_kwargs: {{until: {json.dumps(until)}, max_gen_toks: 32, do_sample: false}}\nmetric_list: [{{metric: exact_match}}]\n")
    return ",".join(str(folder / f"{name}.yaml") for name in names)


def compare_answers(own: dict, peer: dict) -> dict:
    pairs = [(own["base", task, sample["id"]]["prediction"].strip(), sample["responses"][0].strip()) for task, samples in peer["samples"].items() for sample in samples]
    return {"answers": len(pairs), "same": sum(ours == theirs for ours, theirs in pairs)}


def answers(options, pack: Path) -> dict:
    """Greedy answers: the same text up to the stop string, but where the two likeliest tokens are as good as equal."""
    found = {}
    until = ["\n\n", "."]
    with tempfile.TemporaryDirectory() as folder:
        tasks = write_answer_tasks(pack, Path(folder), ANSWERS, until)
        for form in options.forms:
            ours, theirs = FORMS[form]
            _, own = quiver_eval(options, pack, tasks, *ours, dtype="float32")
            _, peer = harness(options, pack, "--answers", *ANSWERS, "--until", *until, *theirs, dtype="fp32")
            found[form] = compare_answers(own, peer)
            print("answers", form, found[form], file=sys.stderr)
    return found


def generation(options, pack: Path) -> dict:
    names = instruction_tasks()
    with tempfile.TemporaryDirectory() as folder:
        tasks = write_answer_tasks(pack, Path(folder), names, ["\n\n"])
        return beside(options, pack, tasks, ["--answers", *names, "--until", "\n\n"], compare_answers)


def write_few_shot(pack: Path, num_rows: int) -> list:
    """BBH as questions with options (all answers that a task has), behind three solved examples; not tasks of free answers."""
    (pack / "few_shot").mkdir(exist_ok=True)
    by_task = {}
    for row in rows_of(ROOT / "data/heldout_gen/bbh.jsonl.zst"):
        by_task.setdefault(row["task"], []).append(row)
    names = []
    for name, rows in by_task.items():
        options = sorted({row["target"] for row in rows})
        if len(options) > 20:
            continue
        examples = "".join(f"Q: {row['input']}\nA: {row['target']}\n\n" for row in rows[:3])
        questions = [{"id": row["id"], "context": f"{examples}Q: {row['input']}\nA:", "choices": options, "label": options.index(row["target"]), "mode": "suffix"}
                     for row in rows[3:3 + num_rows]]
        (pack / f"few_shot/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
        names.append(name)
    return names


def few_shot(options, pack: Path) -> dict:
    names = write_few_shot(pack, options.few_shot_rows)
    with tempfile.TemporaryDirectory() as folder:
        tasks = []
        for name in names:
            file = Path(folder) / f"{name}.yaml"
            file.write_text(f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {pack}/few_shot/{name}.jsonl}}}}\ntest_split: test\n"
                            'output_type: multiple_choice\ndoc_to_text: "{{context}}"\ndoc_to_choice: choices\ndoc_to_target: label\n'
                            "metric_list: [{metric: acc}, {metric: acc_norm}]\n")
            tasks.append(str(file))
        return beside(options, pack, ",".join(tasks), ["--sets", *names, "--folder-of-sets", "few_shot"], compare_choices)


def beside(options, pack: Path, tasks: str, theirs: list, compare) -> dict:
    """Seconds of both, end to end and (the harness) without loading, and whether they agree."""
    seconds = []
    for _ in range(options.rounds):
        one, own = quiver_eval(options, pack, tasks, "--no-chat")
        seconds.append(one)
    peers = {}
    for batch in options.batches:
        whole, document = harness(options, pack, *theirs, batch=batch)
        peers[batch] = {"whole": whole, "without loading": document["seconds"]}
    batch = min(peers, key=lambda one: peers[one]["whole"])
    ours = statistics.median(seconds)
    return {"quiver seconds": ours, "harness seconds": peers[batch]["whole"], "harness without loading": peers[batch]["without loading"], "harness batch": batch, "batches": {str(one): peers[one]["whole"] for one in peers},
            "ratio": peers[batch]["whole"] / ours, "ratio without the harness's loading": peers[batch]["without loading"] / ours, "agreement": compare(own, document)}


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
            ours = ["--context", options.context] if name == "base" else ours
            _, own, document = quiver_document(options, pack, str(file), *ours, "--no-chat", dtype="float32")
            _, peer = harness(options, pack, "--texts", "texts", *theirs, batch=1, dtype="fp32")
            found[name] = compare_texts(own, document, peer)
            print("text", name, found[name], file=sys.stderr)
    return found


def speed(options, pack: Path) -> dict:
    return beside(options, pack, ",".join(SETS), ["--sets", *SETS], compare_choices)


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
    for part in PARTS:
        if part not in found:
            continue
        lines.append(f"## {part}\n")
        for name, value in found[part].items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {len(one) if isinstance(one, list) else one if isinstance(one, int) else format(one, '.3g')}" for key, one in value.items() if not isinstance(one, dict))
            elif isinstance(value, float):
                value = format(value, ".3g")
            lines.append(f"- {name}: {value}")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16", help="of the parts speed, few_shot, generation and methods")
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 16, 32], help="of the harness, in these parts")
    parser.add_argument("--agreement-batch", type=int, default=16, help="of the harness, in the part agreement: 1 pads nothing")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS), help="of prompts, in the parts agreement and answers")
    parser.add_argument("--context", type=int, default=1024, help="of the base, in the part text; 0 leaves the base out")
    parser.add_argument("--few-shot-rows", type=int, default=8, help="of each task, in the part few_shot")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--library", type=Path, help="for the part methods")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
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
