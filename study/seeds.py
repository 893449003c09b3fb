#!/usr/bin/env python3
"""What several seeds of a library say together (make demo-seeds, make study-diverse): other adapters and other rows with each seed.

    study/seeds.py --title "The demo" --command "make demo-seeds" runs/demo-1/results.json runs/demo-2/results.json ... > docs/study/demo.md

A method's value on a task is its mean over rows and seeds. Intervals are Student's over tasks, 95 %: what they say is meant of other tasks like
these. Multiple choice and own tasks have intervals by row as well, seed by seed, in the results themselves.
"""

import argparse
import json
import math
import pathlib
import sys

import statistics95

SECTIONS = (("instruction", "tasks that no adapter has seen", ("rouge_l", "nll")), ("train", "own tasks", ("nll", "rouge_l")),
            ("choice", "multiple choice", ("acc",)))
LABELS = {"rouge_l": "Rouge-L ↑", "nll": "NLL ↓", "acc": "accuracy ↑"}


def task_means(documents, section, metric):
    """{method: {task: mean over rows and seeds}}."""
    values = {}
    for document in documents:
        for sample in document["samples"]:
            if sample["section"] == section and metric in sample:
                values.setdefault(sample["method"], {}).setdefault(sample["task"], []).append(sample[metric])
    return {method: {task: sum(v) / len(v) for task, v in tasks.items()} for method, tasks in values.items()}


def mean(values):
    return sum(values) / len(values) if values else math.nan


def recovered(means, method):
    kind = method.split("-")[0]
    mean_of, oracle = means.get(f"{kind}-mean"), means.get(f"{kind}-oracle")
    if not mean_of or not oracle or "-" not in method or method.endswith(("-mean", "-oracle")):
        return ""
    low, high = mean(list(mean_of.values())), mean(list(oracle.values()))
    return f"{100 * (low - mean(list(means[method].values()))) / (low - high):.0f} %"


def table(documents, section, title, metrics):
    labels = {m["name"]: m["label"] for m in documents[0]["methods"]}
    by_metric = {metric: task_means(documents, section, metric) for metric in metrics}
    tasks = len(next(iter(by_metric[metrics[0]].values())))
    head = ["method"]
    for metric in metrics:
        head += [LABELS[metric], "from the base [95 % by task]"]
    if section == "train":
        head.append("recovers")
    lines = [f"## {title[0].upper()}{title[1:]} ({tasks})", "", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for method in by_metric[metrics[0]]:
        cells = [labels[method]]
        for metric in metrics:
            means = by_metric[metric]
            cells.append(f"{mean(list(means[method].values())):.3f}")
            difference = statistics95.interval([means[method][t] - means["base"][t] for t in means[method] if t in means["base"]])
            cells.append("" if method == "base" else statistics95.show_difference(difference, 3))
        if section == "train":
            cells.append(recovered(by_metric["nll"], method))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_task(documents):
    """Rouge-L on each held-out task: where the gains come from."""
    means = task_means(documents, "instruction", "rouge_l")
    labels = {m["name"]: m["label"] for m in documents[0]["methods"]}
    methods = [m for m in means if m != "base"]
    lines = ["## Rouge-L on the tasks never seen, one by one", "", "Differences from the base, and of their mean the interval by percentiles of 100,000 bootstrap samples of "
             "the tasks.\nWith twelve tasks that interval is too narrow; Student's, above, is the one to go by.", ""]
    lines += ["| task | Base | " + " | ".join(labels[m] for m in methods) + " |", "| --- |" + " ---: |" * (len(methods) + 1)]
    for task, base in means["base"].items():
        lines.append(f"| {task.split('_')[0]} | {base:.3f} | " + " | ".join(f"{means[m][task] - base:+.3f}" for m in methods) + " |")
    intervals = [statistics95.bootstrap([means[m][t] - base for t, base in means["base"].items()]) for m in methods]
    lines.append("| bootstrap | | " + " | ".join(f"[{low:+.3f}, {high:+.3f}]" for low, high in intervals) + " |")
    return "\n".join(lines)


def load(path):
    """Results, in which a method of another library is named by the library's last name: folders differ from seed to seed."""
    document = json.loads(pathlib.Path(path).read_text())
    for entry, key in [*((m, "name") for m in document["methods"]), *((s, "method") for s in document["samples"])]:
        method, at, library = entry[key].partition("@")
        entry[key] = method + at + pathlib.Path(library).name
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--title", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--about", default="", help="a paragraph more")
    parser.add_argument("results", nargs="+")
    options = parser.parse_args()
    documents = [load(path) for path in options.results]
    seeds = ", ".join(str(d["settings"]["evaluation"]["seed"]) for d in documents)
    base, machine = documents[0]["base"], documents[0]["machine"]
    print(f"# {options.title}\n")
    print(f"Seed{'s' if len(documents) > 1 else ''} {seeds}: other adapters, other clusters and other rows with each. {base['name']}, {base['dtype']}; {machine['cpu']}. Made by "
          f"`{options.command}`.\nA value is the mean over tasks of the mean over rows and seeds. Intervals are over tasks.\n")
    if options.about:
        print(options.about + "\n")
    sections = {sample["section"] for sample in documents[0]["samples"]}
    print("\n".join(table(documents, *section) for section in SECTIONS if section[0] in sections))
    print(by_task(documents))


if __name__ == "__main__":
    main()
