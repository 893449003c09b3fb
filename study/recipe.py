#!/usr/bin/env python3
"""A trial of training settings, on validation rows alone (docs/study/recipe.md has the trials that were made).

    study/recipe.py --name mbc-8e-4 --recipes mbc,shared --clusters 6 --methods base,shared,cluster-gated-arrow -- --max-examples 48 --lr 8e-4

What follows -- goes to `quiver build`. Sixteen tasks of data/train are left out of training and stand for tasks never seen; every figure is of
rows of the split `valid`. No row of the split `test`, and none of data/heldout_*, is read.
"""

import argparse
import json
import pathlib
import shlex
import subprocess

import statistics95

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Half of them answer in a word or a label, half in a phrase or more; few have a sibling among the others.
LEFT_OUT = """task1355_sent_comp_summarization task177_para-nmt_paraphrasing task568_circa_question_generation task376_reverse_order_of_words
task674_google_wellformed_query_sentence_generation task132_dais_text_modification task617_amazonreview_category_text_generation
task292_storycommonsense_character_text_generation task178_quartz_question_answering task400_paws_paraphrase_classification
task227_clariq_classification task1359_numer_sense_answer_generation task384_socialiqa_question_classification task429_senteval_tense
task843_financial_phrasebank_classification task834_mathdataset_classification""".split()
SIXTEEN = """task340_winomt_classification_gender_pro task350_winomt_classification_gender_identifiability_pro
task1336_peixian_equity_evaluation_corpus_gender_classifier task141_odd-man-out_classification_category
task142_odd-man-out_classification_no_category task515_senteval_odd_word_out task591_sciq_answer_generation
task592_sciq_incorrect_answer_generation task582_naturalquestion_answer_generation task927_yelp_negative_to_positive_style_transfer
task928_yelp_positive_to_negative_style_transfer task279_stereoset_classification_stereotype task316_crows-pairs_classification_stereotype
task195_sentiment140_classification task363_sst2_polarity_classification task512_twitter_emotion_classification""".split()


def shortest(count):
    """So many tasks that are not left out, those with the fewest words per row."""
    files = [f for f in json.loads((ROOT / "data/manifest.json").read_text())["files"] if f["file"].startswith("train/") and f["task"] not in LEFT_OUT]
    return [f["task"] for f in sorted(files, key=lambda f: (sum(f["mean_words"].values()), f["task"]))[:count]]


def write_data(folder):
    """The tasks to train on and those left out, as the program reads them: the validation rows take the place of the test rows."""
    for part in ("train", "heldout_sni"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "data/train").glob("*.jsonl.zst")):
        task = path.name.removesuffix(".jsonl.zst")
        text = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True, text=True).stdout
        lines = []
        for row in map(json.loads, text.splitlines()):
            if row["split"] == "valid":
                row["split"] = "test"
            elif row["split"] == "test" or task in LEFT_OUT:
                continue
            lines.append(json.dumps(row) + "\n")
        (folder / ("heldout_sni" if task in LEFT_OUT else "train") / f"{task}.jsonl").write_text("".join(lines))


def task_means(samples, section, metric):
    values = {}
    for sample in samples:
        if sample["section"] == section and metric in sample:
            values.setdefault(sample["method"], {}).setdefault(sample["task"], []).append(sample[metric])
    return {method: {task: sum(v) / len(v) for task, v in tasks.items()} for method, tasks in values.items()}


def show(results):
    """A row per method: own tasks, then tasks left out with their difference from the base, 95 % by task."""
    for method in (m["name"] for m in results["methods"]):
        cells = []
        for section in ("train", "instruction"):
            for metric in ("nll", "rouge_l"):
                means = task_means(results["samples"], section, metric)
                mine, base = means.get(method), means["base"]
                if mine is None:
                    cells.append("–")
                    continue
                cell = f"{sum(mine.values()) / len(mine):.3f}"
                if section == "instruction" and method != "base":
                    mean, half = statistics95.interval([mine[t] - base[t] for t in mine])
                    cell += f" ({mean:+.3f} ± {half:.3f})"
                cells.append(cell)
        print(f"| {method} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiver", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "build/quiver")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs/recipe")
    parser.add_argument("--name", required=True)
    parser.add_argument("--recipes", default="mbc,shared")
    parser.add_argument("--clusters", type=int, default=6)
    parser.add_argument("--tasks", help="sixteen, all (the 80 that are not left out), shortest-N of these, or names", default="sixteen")
    parser.add_argument("--private-settings", help="for private adapters, in place of what follows --")
    parser.add_argument("--methods", default="base,shared,private-mean,private-gated-arrow,cluster-mean,cluster-gated-arrow,private-oracle,cluster-oracle")
    parser.add_argument("--rows", type=int, default=8, help="validation rows of each of the sixteen tasks")
    parser.add_argument("--left-out-rows", type=int, default=12)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all cores)")
    parser.add_argument("settings", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    data = options.work / "data"
    if not data.exists():
        write_data(data)
    tasks = {"sixteen": ",".join(SIXTEEN), "all": "all"}.get(options.tasks, options.tasks)
    if tasks.startswith("shortest-"):
        tasks = ",".join(shortest(int(tasks.removeprefix("shortest-"))))
    library = options.work / options.name
    settings = [s for s in options.settings if s != "--"]

    def call(*arguments):
        subprocess.run([str(options.quiver), *map(str, arguments)], cwd=ROOT, check=True)

    def build(recipe, *more):
        chosen = [] if recipe == "clusters" else ["--tasks", tasks]  # the library's groups name theirs
        call("build", "--recipe", recipe, "--library", library, "--data", data / "train", *chosen, "--threads", options.threads, *more)

    for recipe in options.recipes.split(","):
        if recipe == "mbc" and options.private_settings is not None:
            build("private", *shlex.split(options.private_settings))
            call("cluster", "--library", library, "--num-clusters", options.clusters, "--seed", 1)
            build("clusters", *settings)
        else:
            build(recipe, *(["--num-clusters", options.clusters] if recipe == "mbc" else []), *settings)
    results = options.work / f"{options.name}.json"
    call("eval", "--library", library, "--methods", options.methods, "--data", data, "--tasks", ",".join([*SIXTEEN, "sni"]),
         "--limit", f"upstream={options.rows},sni={options.left_out_rows}", "--max-new-tokens", 32, "--threads", options.threads,
         "--output", results, "--force")
    show(json.loads(results.read_text()))


if __name__ == "__main__":
    main()
