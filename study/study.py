#!/usr/bin/env python3
"""The tables and figures of Ostapenko et al. 2024 at the size of SmolLM2-135M and data/ (make study, study-small, study-all).

Every step is a few calls of the program, whose results are kept under --work: killed and started again, the study goes
on where it was (the program itself goes on within an adapter and within an evaluation). At the end the folder --out
gets results.json, README.md (the tables, each with the paper's claim and whether it held) and the figures.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy
import safetensors.numpy

import statistics95
import tables

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Tasks with natural neighbours and short texts, in families: what clustering should find, and 135 million parameters can learn.
FAMILIES = [
    ["task141_odd-man-out_classification_category", "task142_odd-man-out_classification_no_category"],
    ["task591_sciq_answer_generation", "task592_sciq_incorrect_answer_generation"],
    ["task927_yelp_negative_to_positive_style_transfer", "task928_yelp_positive_to_negative_style_transfer"],
    ["task113_count_frequency_of_letter", "task161_count_words_containing_letter"],
    ["task195_sentiment140_classification", "task363_sst2_polarity_classification"],
    ["task512_twitter_emotion_classification", "task397_semeval_2018_task1_tweet_anger_detection"],
]
ADAPT_TASKS = [
    "task1195_disflqa_disfluent_to_fluent_conversion", "task957_e2e_nlg_text_generation_generate",
    "task039_qasc_find_overlapping_words", "task1153_bard_analogical_reasoning_affordance",
]


FULL_RATE = "1e-4"  # of full fine-tuning; the authors' 3e-5 is for a hundred thousand steps


def mean_cosine(library):
    """Of the flattened factors of the library's cluster adapters, over pairs; None for fewer than two."""
    vectors = []
    for folder in sorted([*library.glob("adapters/cluster-*"), *library.glob("adapters/part-*")]):
        tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
        vector = numpy.concatenate([tensors[name].ravel() for name in sorted(tensors)])
        vectors.append(vector / numpy.linalg.norm(vector))
    if len(vectors) < 2:
        return None
    cosines = numpy.stack(vectors) @ numpy.stack(vectors).T
    return float(cosines[numpy.triu_indices(len(vectors), 1)].mean())


def machine(quiver):
    done = subprocess.run([str(quiver), "bench", "gemm", "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["machine"]


@dataclasses.dataclass
class Size:
    """How much of everything; docs/study/README.md says why."""

    families: int  # 0: every task of data/train
    examples: int  # training rows of a task
    epochs: int  # of private, shared, Poly and MHR; MBC divides them 40 : 60
    seeds: tuple
    clusters: int
    sweep: tuple  # other numbers of clusters
    skills: int
    train_rows: int  # test rows of a task, a held-out task, a multiple-choice set
    sni_rows: int
    choice_rows: int
    pairs: int  # of figure 2, with the first seed
    adapt_tasks: int  # of a seed, each with others
    adapt_rows: tuple  # training rows: all there are to be, and shares of them
    adapt_test_rows: int
    evaluations: int  # of LoraHub
    gate_steps: int
    # docs/study/recipe.md. Part of the settings, so that what was found with others is made again.
    prompts: str = "chat"
    rate: str = "8e-4"
    shared_rate: str = "2e-4"  # of one adapter on all tasks
    batch: int = 8

    @property
    def tasks(self):
        if self.families == 0:
            return sorted(path.name.removesuffix(".jsonl.zst") for path in (ROOT / "data/train").glob("*.jsonl.zst"))
        return sum(FAMILIES[: self.families], [])


SIZES = {
    "tiny": Size(2, 16, 2, (1,), 2, (1,), 2, 1, 1, 1, 2, 1, (8,), 2, 3, 2),
    "small": Size(3, 12, 5, (1,), 2, (1, 3), 4, 4, 1, 4, 3, 1, (16, 4), 8, 12, 12),
    "all": Size(0, 20, 5, (1,), 10, (1, 24), 8, 3, 8, 24, 24, 1, (40, 4), 32, 24, 8),
    "full": Size(6, 20, 5, (1, 2, 3), 4, (1, 8), 6, 8, 3, 12, 20, 1, (40, 4), 16, 24, 24),
    # Half the rows of `full`, one seed: for machines that do not multiply bfloat16. Ten rows want smaller batches (docs/study/recipe.md, few rows).
    "half": Size(6, 10, 5, (1,), 4, (1, 8), 6, 4, 2, 6, 10, 1, (20, 4), 8, 12, 12, batch=4),
}


class Study:
    def __init__(self, options):
        self.options = options
        self.size = SIZES[options.size]
        self.work = pathlib.Path(options.work) / options.size
        self.work.mkdir(parents=True, exist_ok=True)
        self.finished = options.out / "seeds"  # what a finished seed found: committed, so that it outlives --work
        self.tasks = ",".join(self.size.tasks)
        self.lock = threading.Lock()
        if not options.tables:
            self.check_work({"settings": json.loads(json.dumps(dataclasses.asdict(self.size))), "base": options.base})
        self.seconds = {}  # of processor time, by seed and verb: what a study that was stopped, or not alone, took
        path = self.work / "seconds.json"
        if path.exists():
            self.seconds = json.loads(path.read_text())

    def check_work(self, inputs):
        """Finished steps are found by their names alone, so a folder of work is of one size and one base."""
        record = self.work / "inputs.json"
        if record.exists() and json.loads(record.read_text()) != inputs:
            sys.exit(f"study: '{self.work}' holds steps of other settings or of another base (inputs.json); give another --work, or remove it")
        record.write_text(json.dumps(inputs) + "\n")

    # ---- Calling the program

    def call(self, *args):
        """Runs the program; its last line of output as JSON."""
        command = [str(self.options.quiver), *map(str, args), "--threads", str(self.options.threads)]
        if self.options.base and "--base" not in args:
            command += ["--base", self.options.base]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        with self.lock:
            key = " ".join(args[:3]) if args[0] == "build" else str(args[0])
            seconds = self.seconds.setdefault(self.now, {})
            seconds[key] = seconds.get(key, 0) + usage.ru_utime + usage.ru_stime
            (self.work / "seconds.json").write_text(json.dumps(self.seconds))
        if process.returncode == 130:
            sys.exit(130)
        if process.returncode != 0:
            sys.exit(f"failed with {process.returncode}: {' '.join(command)}")
        lines = output.strip().splitlines()
        return json.loads(lines[-1]) if lines else None

    def at_once(self, calls):
        """{name: function} -> {name: its result}, --jobs of them at a time. Each writes what is its own, or adapters into one library."""
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            futures = {name: pool.submit(function) for name, function in calls.items()}
            return {name: future.result() for name, future in futures.items()}

    def step(self, name, function):
        """The result of a step, from disk if it is done."""
        path = self.work / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text())
        print(f"study: {name}", file=sys.stderr)
        result = function()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(result))
        unfinished.rename(path)
        return result

    def train_options(self, seed, epochs=None, rate=None):
        rate = rate or self.size.rate
        return ["--data", "data/train", "--max-examples", self.size.examples, "--epochs", epochs or self.size.epochs,
                "--batch-size", self.size.batch, "--lr", rate, "--seed", seed, "--json"]

    def build(self, recipe, library, seed, *more, epochs=None):
        rate = self.size.shared_rate if recipe == "shared" else None
        tasks = [] if recipe == "clusters" else ["--tasks", self.tasks]  # the library's groups name theirs
        return self.call("build", "--recipe", recipe, "--library", library, *tasks, *self.train_options(seed, epochs, rate), *more)

    def evaluate(self, library, methods, *more, generates=True, part=""):
        """Of the methods: {"values", "clusters"}. `part` names the files of several evaluations of one library."""
        files = str(library) + part
        args = ["eval", "--methods", ",".join(methods), "--tasks", f"{self.tasks},sni,mc",
                "--limit", f"upstream={self.size.train_rows},sni={self.size.sni_rows},mc={self.size.choice_rows}", "--max-new-tokens", 32,
                "--work", files + ".parts", "--output", files + ".results.json", "--force",
                "--json", *more]
        args += ["--base", library] if methods == ["base"] else ["--library", library]  # of full fine-tuning, or a library
        if any("phatgoose" in method for method in methods):
            args += ["--gate-steps", self.size.gate_steps]
        if not generates:
            args.append("--no-generation")
        self.call(*args)
        result = json.loads(pathlib.Path(files + ".results.json").read_text())
        return {"values": statistics95.values_of(result["samples"]), "clusters": result.get("clusters")}

    # ---- Steps, by seed

    def cluster_epochs(self):
        first = max(1, round(0.4 * self.size.epochs))
        return first, self.size.epochs - first

    def libraries(self, seed):
        """Trains everything that is evaluated; returns what it took."""
        folder = self.work / f"seed{seed}"
        folder.mkdir(exist_ok=True)
        main = folder / "main"
        matched = 4 * len(self.size.tasks)  # as many parameters as the private adapters together
        first, second = self.cluster_epochs()
        together = ["--together", self.options.together]
        skills = ["--num-skills", self.size.skills]
        stage = self.build("private", folder / "stage1", seed, *together, epochs=first)
        calls = {
            "private": lambda: self.build("private", main, seed, *together),
            "shared": lambda: self.build("shared", main, seed),
            "poly": lambda: self.build("poly", main, seed, *skills),
            "mhr": lambda: self.build("mhr", main, seed, *skills),
            "shared-matched": lambda: self.build("shared", folder / "matched", seed, "--rank", matched, "--alpha", 4 * matched),
            "full fine-tuning": lambda: self.step(
                f"seed{seed}/full", lambda: self.call("train", "--tasks", self.tasks, *self.train_options(seed, rate=FULL_RATE), "--full",
                                                             folder / "full", "--force")),
        }
        for name, k, similarity in self.groupings():
            calls[name] = functools.partial(self.clusters, folder, name, k, similarity, seed, second)
        for recipe in ("hidden", "tf-idf", "random-tasks", "random-examples"):
            calls[recipe] = functools.partial(self.build, recipe, folder / recipe, seed, "--num-clusters", self.size.clusters, epochs=second)
        budget = {}
        for name, summary in ({"stage 1": stage} | self.at_once(calls)).items():
            total = summary["training"] if "training" in summary else summary["total"]
            budget[name] = {k: total[k] for k in ("steps", "tokens")}
            if (folder / name / "adapters").exists():
                budget[f"cosine {name}"] = mean_cosine(folder / name)
        return budget

    def clusters(self, folder, name, k, similarity, seed, epochs):
        """MBC of the adapters of stage 1 into a library of its own."""
        library = folder / name
        if not library.exists():
            copy = folder / f"{name}.copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder / "stage1", copy)
            copy.rename(library)
        cluster = ["cluster", "--library", library, "--num-clusters", k, "--similarity", similarity, "--seed", seed, "--json"]
        subprocess.run([str(self.options.quiver), *map(str, cluster)], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return self.build("clusters", library, seed, epochs=epochs)

    def groupings(self):
        """(name of the library, K, what is compared)."""
        mbc = [("mbc", self.size.clusters, "factors"), ("mbc-products", self.size.clusters, "products")]
        return mbc + [(f"mbc-{k}", k, "factors") for k in self.size.sweep]

    def evaluations(self, seed):
        folder = self.work / f"seed{seed}"
        routers = ["mean", "arrow", "centroids", "task-predictor", "phatgoose", "spectr", "lag", "lag-base", "arrow-mean", "calibrated-arrow",
                   "gated-arrow", "pooled-arrow", "oracle"]
        of_main = ["base", "shared", *(f"private-{m}" for m in routers), "poly-mean", "poly-oracle", "mhr-mean", "mhr-oracle"]
        of_mbc = [f"cluster-{m}" for m in ("mean", "arrow", "centroids", "task-predictor", "lag", "lag-base", "arrow-mean", "calibrated-arrow",
                                                  "gated-arrow", "oracle")]
        calls = {}
        for library, methods in (("main", of_main), ("mbc", of_mbc)):
            parts = min(self.options.jobs, len(methods))  # one evaluation of all methods reads the model once, several run at once
            for i in range(parts):
                some, part = methods[i::parts], f"-{i}of{parts}" if parts > 1 else ""
                calls[library, i] = functools.partial(self.evaluate, folder / library, some, part=part)
        calls["full", 0] = lambda: self.evaluate(folder / "full", ["base"])
        calls["matched", 0] = lambda: self.evaluate(folder / "matched", ["shared"])
        for name in [*(name for name, _, _ in self.groupings()[1:]), "hidden", "tf-idf", "random-tasks", "random-examples"]:
            calls[name, 0] = functools.partial(self.evaluate, folder / name, ["cluster-mean", "cluster-arrow"], generates=False)
        results = {}
        for (library, _), result in self.at_once(calls).items():
            whole = results.setdefault(library, {"values": {}, "clusters": result["clusters"]})
            for section, metrics in result["values"].items():
                for metric, methods in metrics.items():
                    whole["values"].setdefault(section, {}).setdefault(metric, {}).update(methods)
        return results

    def analyses(self, seed):
        folder = self.work / f"seed{seed}"
        rows = ["--rows", self.size.train_rows, "--data", "data/train", "--seed", seed, "--json"]
        main = ["--library", folder / "main", "--kind", "private"]
        calls = {"norms": lambda: self.call("analyse", "norms", *main, *rows)}
        for method in ("arrow", "calibrated-arrow", "lag"):
            calls[f"routing {method}"] = functools.partial(self.call, "analyse", "routing", *main, "--method", method, *rows)
        if seed == self.size.seeds[0]:
            calls["transfer"] = lambda: self.call(
                "analyse", "transfer", "--library", folder / "main", *rows, "--pairs", self.size.pairs, "--work", folder / "pairs",
                "--max-examples", self.size.examples, "--epochs", self.size.epochs, "--batch-size", self.size.batch, "--lr", self.size.rate)
        return self.at_once(calls)

    # (row of the table, method, library, kind of its adapters, options)
    ADAPTATIONS = [
        ("No library", "fresh", None, None, []),
        ("Shared", "shared", "main", "shared", []),
        ("Poly", "poly", "main", "poly", []),
        ("MHR", "mhr", "main", "mhr", []),
        ("pi-tuning", "pi-tuning", "main", "private", ["--retrieve", 2]),
        ("Private, mean", "mean", "main", "private", []),
        ("Private, 2 nearest, mean", "mean", "main", "private", ["--retrieve", 2, "--retrieve-by", "weights"]),
        ("Private, 2 at random, mean", "mean", "main", "private", ["--retrieve", 2, "--retrieve-by", "random"]),
        ("Random tasks, Poly", "poly", "random-tasks", "cluster", []),
        ("MBC, mean", "mean", "mbc", "cluster", []),
        ("MBC, Poly", "poly", "mbc", "cluster", []),
        ("MBC, PolyZ", "polyz", "mbc", "cluster", []),
        ("MBC, LoraHub", "lorahub", "mbc", "cluster", []),
        ("MBC, weights by gradient", "weights", "mbc", "cluster", []),
    ]

    def adaptations(self, seed):
        folder = self.work / f"seed{seed}"
        calls = {}
        count = self.size.adapt_tasks
        tasks = [ADAPT_TASKS[((seed - 1) * count + i) % len(ADAPT_TASKS)] for i in range(count)]
        for rows in self.size.adapt_rows:
            for task in tasks:
                for label, method, library, kind, more in self.ADAPTATIONS:
                    name = f"seed{seed}/adapt/{rows}/{task}/{label.replace(' ', '-').replace(',', '')}"
                    adapt = functools.partial(self.adapt, folder, name, rows, task, method, library, kind, more, seed)
                    calls[f"{rows}/{task}/{label}"] = functools.partial(self.step, name, adapt)
        for task in tasks:
            name = f"seed{seed}/adapt/base/{task}"
            calls[f"0/{task}/Base"] = functools.partial(self.step, name, functools.partial(self.evaluate_adapter, None, task, name))
        return self.at_once(calls)

    def adapt(self, folder, name, rows, task, method, library, kind, more, seed):
        output = self.work / f"{name}.adapter"
        args = ["adapt", "--method", method, "--task", task, "--data", "data/heldout_sni", "--max-examples", rows, "--seed", seed,
                "--output", output, "--force", "--json", *more]
        if library:
            args += ["--library", folder / library, "--kind", kind]
        if method == "pi-tuning":
            args += ["--task-data", "data/train"]
        if method == "lorahub":
            args += ["--evaluations", self.size.evaluations, "--max-new-tokens", 32, "--search-rows", min(rows, 16)]
        else:
            args += ["--epochs", self.size.epochs, "--batch-size", self.size.batch, "--lr", "1e-3", "--validate", min(16, max(4, rows // 4))]
        output.parent.mkdir(parents=True, exist_ok=True)
        self.call(*args)
        return self.evaluate_adapter(output, task, name)

    def evaluate_adapter(self, adapter, task, name):
        args = ["eval", "--tasks", task, "--limit", self.size.adapt_test_rows, "--max-new-tokens", 32, "--json"]
        args += ["--methods", "given", "--adapter", adapter] if adapter else ["--methods", "base"]
        output = self.work / f"{name}.results.json"
        output.parent.mkdir(parents=True, exist_ok=True)
        self.call(*args, "--output", output, "--force")
        return statistics95.values_of(json.loads(output.read_text())["samples"])

    def seed(self, seed):
        """All that a seed found; from docs if it is finished there, of these settings."""
        path = self.finished / f"seed{seed}.json"
        settings = json.loads(json.dumps(dataclasses.asdict(self.size)))
        if path.exists():
            stored = json.loads(path.read_text())
            if {"batch": 8} | stored["settings"] == settings and "missing" not in stored:  # older files do not name the batch, which was 8
                return stored
            print(f"study: {path} is unfinished or of other settings; made again", file=sys.stderr)
        result = {"settings": settings, "machine": machine(self.options.quiver)}
        for name in ("libraries", "evaluations", "analyses", "adaptations"):
            result[name] = self.step(f"seed{seed}/{name}", lambda: getattr(self, name)(seed))
        result["seconds"] = self.seconds[str(seed)]
        self.finished.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, separators=(",", ":")) + "\n")
        return result

    def run(self):
        """Seed by seed; after each the tables say what the seeds until then say."""
        results = {"size": self.options.size, "settings": dataclasses.asdict(self.size), "tasks": self.size.tasks, "seeds": {}}
        for seed in self.size.seeds:
            self.now = str(seed)
            if self.options.tables:
                path = self.finished / f"seed{seed}.json"
                if not path.exists():
                    continue
                results["seeds"][seed] = json.loads(path.read_text())
            else:
                results["seeds"][seed] = self.seed(seed)
            tables.write(results, self.options.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiver", default=ROOT / "build/quiver", type=pathlib.Path)
    parser.add_argument("--base", default="", help="another base model")
    parser.add_argument("--size", choices=[*SIZES, "auto"], default="full", help="auto: full, or half where the hardware does not multiply bfloat16")
    parser.add_argument("--work", default=ROOT / "runs/study", type=pathlib.Path)
    parser.add_argument("--out", default=None, type=pathlib.Path, help="default: docs/study/SIZE")
    parser.add_argument("--threads", default=0, type=int, help="of each call of the program (0: all cores)")
    parser.add_argument("--jobs", default=1, type=int, help="calls of the program at once: for machines with a GPU, which one call does not fill")
    parser.add_argument("--together", default=1, type=int, help="private adapters trained in one batch")
    parser.add_argument("--tables", action="store_true", help="only render again what --out/seeds holds")
    options = parser.parse_args()
    if options.size == "auto":
        here = machine(options.quiver)
        options.size = "half" if here["bf16 in hardware"] == "no" and here["gpu"] == "no" else "full"
        print(f"study: size '{options.size}' for this machine; --size chooses another", file=sys.stderr)
    options.out = options.out or ROOT / "docs/study" / options.size
    Study(options).run()
    print(options.out / "README.md")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the program has said how to go on
        sys.exit(130)
