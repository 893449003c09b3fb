#!/usr/bin/env python3
"""Does a library help on tasks of a kind that it has never seen? Every task of data/train is left out once (make study-folds).

The 27 categories of the tasks are dealt into folds. A library of each fold is trained on the tasks of the other folds' categories, and evaluated on test
rows of the fold's own tasks: so nothing of a task's whole category was trained on, as with the 12 tasks of data/heldout_sni, whose categories are others
again. Ninety-six tasks decide what twelve leave open. The same libraries are evaluated on those twelve, on the tasks that they know, and on multiple
choice. Killed and started again, it goes on where it was.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

import seeds
import statistics95
from seeds import mean, task_means

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ["base", "shared", *(f"{kind}-{method}" for kind in ("private", "cluster") for method in ("mean", "arrow", "lag", "gated-arrow", "oracle"))]
SHORT = 4  # words of a target on average, from which a task wants a phrase and not a label


def manifest():
    """{task: its entry}."""
    files = json.loads((ROOT / "data/manifest.json").read_text())["files"]
    return {f["task"]: f for f in files}


def deal(entries, count, seed):
    """The tasks in `count` folds of whole categories: each category, in random order, to the fold with the fewest tasks."""
    categories = sorted({e["category"] for e in entries.values()})
    random.Random(seed).shuffle(categories)
    folds = [[] for _ in range(count)]
    for category in categories:
        min(folds, key=len).extend(task for task, e in sorted(entries.items()) if e["category"] == category)
    return folds


class Folds:
    def __init__(self, options):
        self.options = options
        self.entries = manifest()
        self.left_out = {task for task, entry in self.entries.items() if entry["file"].startswith("train/")}
        self.folds = deal({task: self.entries[task] for task in self.left_out}, options.folds, options.seed)

    def call(self, *args):
        command = [str(self.options.quiver), *map(str, args), "--threads", str(self.options.threads)]
        code = subprocess.run(command, cwd=ROOT).returncode
        if code == 130:  # stopped by Ctrl-C; the program has said so
            sys.exit(code)
        if code != 0:
            sys.exit(f"failed with {code}: {' '.join(command)}")

    def work(self, fold):
        return self.options.work / f"fold{fold}"

    def data(self, fold):
        """A data folder that knows the fold's tasks as held-out instructions, beside the twelve, and the others as training tasks."""
        data = self.work(fold) / "data"
        tasks = {"train": [], "heldout_sni": [path for path in (ROOT / "data/heldout_sni").glob("*.jsonl.zst")]}
        for other, names in enumerate(self.folds):
            tasks["heldout_sni" if other == fold else "train"] += [ROOT / f"data/train/{name}.jsonl.zst" for name in names]
        for part, paths in tasks.items():
            (data / part).mkdir(parents=True, exist_ok=True)
            for path in paths:
                link(path, data / part / path.name)
        link(ROOT / "data/heldout_mc", data / "heldout_mc")
        return data

    def run(self, fold):
        """Trains and evaluates; returns the results. Rates and batches: docs/study/recipe.md, few rows."""
        library, data, seed = self.work(fold) / "library", self.data(fold), self.options.seed + fold
        common = ["--library", library, "--seed", seed]

        def build(recipe, *more):
            chosen = [] if recipe == "clusters" else ["--tasks", "all"]  # the library's groups name theirs
            self.call("build", "--recipe", recipe, *common, "--data", data / "train", *chosen, "--max-examples", self.options.rows, "--epochs", 3, *more)

        build("shared")
        build("private", "--batch-size", 4, "--lr", "2e-3", "--together", 4)
        self.call("cluster", *common, "--num-clusters", 6)
        build("clusters")
        output = self.work(fold) / "results.json"
        self.call("eval", *common, "--methods", ",".join(METHODS), "--data", data, "--tasks", "upstream,sni,mc", "--limit",
                  f"upstream=2,sni={self.options.test_rows},mc=24", "--max-new-tokens", 32, "--work", self.work(fold) / "parts", "--output", output, "--force")
        return json.loads(output.read_text())


def link(target, path):
    if not path.is_symlink():
        path.symlink_to(target)


def by_category(differences, entries):
    """Means over the tasks of a category."""
    categories = {}
    for task, difference in differences.items():
        categories.setdefault(entries[task]["category"], []).append(difference)
    return [mean(values) for values in categories.values()]


def data_set(task):
    """The data that a task is made of, as its name tells: "sciq" of task591_sciq_answer_generation."""
    return task.split("_")[1].split("-")[0]


def shares_data(task, folds):
    """Whether a task of another fold is made of the same data: it has the same texts, though another question is asked of them."""
    return any(data_set(other) == data_set(task) for fold in folds if task not in fold for other in fold)


# What is routed against what is not.
PAIRS = [("private-gated-arrow", "private-mean"), ("cluster-gated-arrow", "cluster-mean"), ("private-gated-arrow", "shared"), ("cluster-gated-arrow", "shared"),
         ("cluster-arrow", "cluster-mean"), ("private-arrow", "private-mean")]


def pairs_table(documents, seen):
    """Differences between methods by task: on the tasks left out, and on the libraries' own."""
    labels = {m["name"]: m["label"] for m in documents[0]["methods"]}
    lines = ["| | left out: Rouge-L ↑ | NLL ↓ | own tasks: Rouge-L ↑ | NLL ↓ |", "| --- | ---: | ---: | ---: | ---: |"]
    for routed, other in PAIRS:
        cells = [f"{labels[routed]}, against {labels[other]}"]
        for section in ("instruction", "train"):
            for metric in ("rouge_l", "nll"):
                means = task_means(documents, section, metric)
                tasks = seen if section == "instruction" else means["base"]
                cells.append(statistics95.show_difference(statistics95.interval([means[routed][t] - means[other][t] for t in tasks]), 3))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table(documents, entries, tasks):
    """A row for each method, over those of `tasks`: means, and differences from the base with intervals by task and by category."""
    labels = {m["name"]: m["label"] for m in documents[0]["methods"]}
    head = ["method"]
    for label in ("Rouge-L ↑", "NLL ↓"):
        head += [label, "from the base [95 % by task]", "[by category]", "tasks better / worse"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    values = {metric: task_means(documents, "instruction", metric) for metric in ("rouge_l", "nll")}
    for method in values["nll"]:
        cells = [labels[method]]
        for metric, means in values.items():
            cells.append(f"{mean([means[method][task] for task in tasks]):.3f}")
            differences = {task: means[method][task] - means["base"][task] for task in tasks}
            intervals = [statistics95.interval(list(differences.values())), statistics95.interval(by_category(differences, entries))]
            gains = [d if metric == "rouge_l" else -d for d in differences.values()]
            cells += ["", "", ""] if method == "base" else [statistics95.show_difference(intervals[0], 3), statistics95.show_bounds(intervals[1], 3),
                                                            f"{sum(g > 0 for g in gains)} / {sum(g < 0 for g in gains)}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def render(documents, study):
    options, entries = study.options, study.entries
    seen = sorted({s["task"] for d in documents for s in d["samples"] if s["section"] == "instruction" and s["task"] in study.left_out})
    long = [task for task in seen if entries[task]["mean_words"]["target"] >= SHORT]
    apart = [task for task in seen if not shares_data(task, study.folds)]
    twelve = sorted({s["task"] for s in documents[0]["samples"] if s["section"] == "instruction"} - study.left_out)
    base, machine = documents[0]["base"], documents[0]["machine"]
    of = f"{len(documents)} of {options.folds}" if len(documents) < options.folds else options.folds
    categories = len({entries[task]["category"] for task in seen})
    parts = [f"""# Tasks left out by category

Made by `make study-folds` (study/folds.py). {base["name"]}, {base["dtype"]}; {machine["cpu"]}. {of} folds of whole categories, seed {options.seed}.
Each library was trained on the tasks of the other folds, {options.rows} rows of each, for 3 epochs: a shared adapter, private ones, and 6 clusters. Every task is
evaluated ({options.test_rows} test rows) by the library that was trained on no task of its category. Intervals are Student's t, over tasks and over the means of categories."""]
    for title, tasks in ((f"Tasks of data/train, each unseen: {len(seen)} of {categories} categories", seen),
                         (f"Of these, {len(long)} that want {SHORT} words or more", long),
                         (f"And {len(seen) - len(long)} that want fewer", [task for task in seen if task not in long]),
                         (f"And {len(apart)} that share no data with a task of another fold", apart),
                         (f"The {len(twelve)} tasks of data/heldout_sni, by every library", twelve)):
        parts.append(f"## {title}\n\n{table(documents, entries, tasks)}")
    parts.insert(5, f"## Routed against static\n\n{pairs_table(documents, seen)}")
    parts += [seeds.table(documents, "train", "own tasks", ("nll", "rouge_l")), seeds.table(documents, "choice", "multiple choice", ("acc",))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiver", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "build/quiver")
    parser.add_argument("--work", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "runs/folds")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/study/unseen.md")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=6, help="training rows of each task")
    parser.add_argument("--test-rows", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all cores)")
    options = parser.parse_args()
    study = Folds(options)
    documents = []
    for fold in range(options.folds):
        print(f"study: fold {fold + 1} of {options.folds}", file=sys.stderr)
        documents.append(study.run(fold))
        options.out.write_text(render(documents, study))
    print(options.out)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the program has said how to go on
        sys.exit(130)
