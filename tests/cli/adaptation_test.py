"""Ways of making a library beyond private adapters, learning a new task from one, and looking into it.

Run as cli_test.py.
"""

import json
import signal
import subprocess
import time
import unittest

from test_support import QUIVER, ROOT, TINY, Case, main, make_tasks, run, write_jsonl


class Adaptation(Case):
    def setUp(self):
        super().setUp()
        self.data = self.tmp / "data"
        make_tasks(self.data / "train")
        make_tasks(self.data / "heldout_sni", names=("alpha-like", "other"))
        self.library = self.tmp / "library"
        self.build = ["build", "--base", TINY, "--data", self.data / "train", "--library", self.library, "--dtype", "float32",
                      "--batch-size", 4, "--lr", "2e-2", "--json"]

    def adapt(self, method, output, *more):
        args = ["adapt", "--base", TINY, "--data", self.data / "heldout_sni", "--task", "alpha-like", "--method", method, "--dtype", "float32",
                "--output", self.tmp / output, *more]
        if method == "lorahub":  # trains nothing
            return args
        args += ["--batch-size", 4, "--lr", "1e-2", "--validate", 4]
        return args if "--epochs" in args else [*args, "--epochs", 6]

    def nll(self, *args):
        # The rows of alpha-like are those of alpha: "Say text."
        rows = [json.loads(line) for line in (self.data / "heldout_sni/alpha-like.jsonl").read_text().splitlines()]
        requests = self.tmp / "requests.jsonl"
        write_jsonl(requests, [{"id": r["id"], "context": r["instruction"] + "\n\n" + r["input"], "continuation": " " + r["target"]}
                               for r in rows if r["split"] == "test"])
        lines = run("score", "--base", TINY, "--input", requests, "--dtype", "float32", *args).stdout.splitlines()
        return -sum(json.loads(line)["logprob"] for line in lines) / len(lines)

    def test_every_method_learns_the_task(self):
        run(*self.build, "--recipe", "private", "--epochs", 4)
        run(*self.build, "--recipe", "shared", "--epochs", 2)
        base = self.nll()
        methods = [m["name"] for m in json.loads(run("methods", "--json").stdout)["adapt"]]
        self.assertEqual(len(methods), 10)
        for method in methods:
            with self.subTest(method):
                more = [] if method == "fresh" else ["--library", self.library]
                if method == "pi-tuning":
                    more += ["--task-data", self.data / "train"]
                if method.startswith("mhr"):
                    more += ["--heads", 4]
                if method == "lorahub":
                    more += ["--objective", "loss", "--penalty", "0.01", "--evaluations", 12]
                summary = json.loads(run(*self.adapt(method, method, "--json", *more)).stdout)
                self.assertEqual(summary["method"], method)
                self.assertLess(self.nll("--adapter", self.tmp / method), base - 0.3, method)
                self.assertFalse((self.tmp / f"{method}.parts").exists())
                if method in ("weights", "lorahub"):
                    self.assertEqual(len(summary["weights"]), 4)
                if method == "pi-tuning":
                    self.assertEqual(summary["retrieved"]["by"], "fisher")
        self.expect_error(self.adapt("mean", "mean", "--library", self.library), 2, "force")
        self.expect_error(self.adapt("mean", "no"), 2, "give --library")
        self.expect_error(self.adapt("maen", "no"), 2, "mean", "quiver methods")
        self.expect_error(self.adapt("mhr", "no", "--library", self.library, "--heads", 7), 2, "7 heads do not divide")
        self.expect_error(self.adapt("mean", "no", "--library", self.library, "--retrieve", 9), 2, "--retrieve 9 of 4 adapters")
        self.expect_error(self.adapt("mean", "no", "--library", self.library, "--kind", "poly"), 3, "no poly adapters")

    def test_what_is_retrieved_is_near(self):
        run(*self.build, "--recipe", "private", "--epochs", 6)
        for by in ("weights", "fisher"):
            with self.subTest(by):
                more = ["--task-data", self.data / "train"] if by == "fisher" else []
                summary = json.loads(run(*self.adapt("mean", by, "--json", "--library", self.library, "--retrieve", 1, "--retrieve-by", by, *more)).stdout)
                self.assertEqual(summary["members"], ["alpha"])
        seeds = [json.loads(run(*self.adapt("mean", f"random{seed}", "--json", "--library", self.library, "--retrieve", 2, "--retrieve-by", "random",
                                            "--seed", seed, "--epochs", 1)).stdout)["members"] for seed in (1, 2, 3)]
        self.assertGreater(len({tuple(s) for s in seeds}), 1)

    def test_interrupted_it_goes_on_to_the_same_adapter(self):
        run(*self.build, "--recipe", "private", "--epochs", 2)
        more = ("--library", self.library, "--retrieve", 2, "--checkpoint-seconds", 0, "--epochs", 60)
        run(*self.adapt("poly", "whole", *more))
        process = subprocess.Popen([str(QUIVER), *map(str, self.adapt("poly", "killed", *more))], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not (self.tmp / "killed.parts/poly-projection-1.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.assertFalse((self.tmp / "killed").exists())
        run(*self.adapt("poly", "killed", *more))
        file = "adapter_model.safetensors"
        self.assertEqual((self.tmp / "whole" / file).read_bytes(), (self.tmp / "killed" / file).read_bytes())

    def test_groups_without_private_adapters(self):
        for recipe in ("hidden", "tf-idf", "random-tasks"):
            with self.subTest(recipe):
                library = self.tmp / recipe
                build = [*map(str, self.build), "--recipe", recipe, "--num-clusters", 2, "--epochs", 1]
                build[build.index(str(self.library))] = library
                names = [a["name"] for a in json.loads(run(*build).stdout)["adapters"]]
                self.assertLessEqual(set(names), {"cluster-c0", "cluster-c1"})
                groups = json.loads(run("library", "ls", "--library", library, "--json").stdout)["groups"]
                self.assertEqual(sorted(sum(groups.values(), [])), ["alpha", "beta", "delta", "gamma"])
                self.assertFalse(any(a["is_new"] for a in json.loads(run(*build).stdout)["adapters"]))
        parts = json.loads(run(*self.build, "--recipe", "random-examples", "--num-clusters", 3, "--epochs", 1).stdout)["adapters"]
        self.assertEqual([a["name"] for a in parts], ["part-0", "part-1", "part-2"])
        rows = 4 * (24 - 8)  # training rows in all
        self.assertEqual([a["steps"] for a in parts], [-(-n // 4) for n in (rows // 3 + 1, rows // 3, rows // 3)])
        self.expect_error([*self.build, "--recipe", "hiden"], 2, "'hidden'")
        self.expect_error([*self.build, "--recipe", "hidden", "--num-clusters", 5], 2, "--num-clusters 5 for 4 tasks")

    def test_the_model_itself_is_tuned(self):
        full = ["train", "--base", TINY, "--data", self.data / "train", "--dtype", "float32", "--batch-size", 8, "--lr", "1e-3", "--epochs", 3,
                "--full", self.tmp / "full", "--json"]
        result = json.loads(run(*full).stdout.splitlines()[-1])
        self.assertLess(result["training"]["last_loss"], result["training"]["first_loss"])
        self.assertFalse((self.tmp / "full.parts").exists())
        args = ["eval", "--data", self.data, "--tasks", "upstream", "--no-generation", "--dtype", "float32", "--json", "--base"]
        before, after = (json.loads(run(*args, base).stdout)["summary"][0]["mean"] for base in (TINY, self.tmp / "full"))
        self.assertLess(after, before - 0.3)
        self.expect_error(full, 2, "--force")
        self.expect_error([*full, "--library", self.library], 2, "--library is read by trainings of adapters, not by --full")
        # From a GGUF file comes a folder, too, which tokenizes alike.
        gguf = ROOT / "tests/golden/model/llama-mixed.gguf"
        run("train", "--base", gguf, "--data", self.data / "train", "--tasks", "alpha", "--dtype", "float32", "--epochs", 1, "--lr", "1e-12",
            "--full", self.tmp / "from-gguf")
        text = "Is the answer in the text?"
        answers = [run("generate", "--base", base, "--prompt", text, "--dtype", "float32", "--json", "--max-new-tokens", 8).stdout
                   for base in (gguf, self.tmp / "from-gguf")]
        self.assertEqual(*answers)

    def test_a_budget_is_divided_forty_to_sixty(self):
        summary = json.loads(run(*self.build, "--recipe", "mbc", "--num-clusters", 2, "--budget-epochs", 5).stdout)
        steps = {a["kind"]: 0 for a in summary["adapters"]}
        for adapter in summary["adapters"]:
            steps[adapter["kind"]] += adapter["steps"]
        self.assertEqual(steps["private"], 2 * 4 * 4)  # epochs, tasks, batches of each
        self.assertEqual(steps["cluster"], 3 * 16)
        self.expect_error([*self.build, "--recipe", "private", "--budget-epochs", 5], 2, "--recipe mbc")

    def test_analyses(self):
        run(*self.build, "--recipe", "private", "--epochs", 3)
        common = ["--base", TINY, "--data", self.data / "train", "--library", self.library, "--dtype", "float32", "--rows", 3]
        routing = json.loads(run("analyse", "routing", *common, "--method", "arrow", "--json").stdout)
        self.assertEqual([t["name"] for t in routing["tasks"]], ["alpha", "beta", "delta", "gamma"])
        self.assertEqual(routing["num_samples"], 12)
        self.assertAlmostEqual(routing["mean"]["true_share"], sum(t["true_share"] for t in routing["tasks"]) / 4)
        self.assertIn("own task", run("analyse", "routing", *common).stdout)
        self.assertIn("above 1 for", run("analyse", "norms", *common).stdout)
        pairs = ["analyse", "transfer", *common, "--pairs", 5, "--work", self.tmp / "pairs", "--epochs", 2, "--batch-size", 4, "--lr", "1e-2"]
        transfer = json.loads(run(*pairs, "--json").stdout)
        self.assertEqual(len({tuple(p["tasks"]) for p in transfer["pairs"]}), 5)
        cosines = [p["cosine"] for p in transfer["pairs"]]
        two = json.loads(run(*(2 if p == 5 else p for p in pairs), "--json").stdout)
        self.assertEqual([p["cosine"] for p in two["pairs"]], [min(cosines), max(cosines)])  # the least and the most alike
        self.assertLess(transfer["interval"][0], transfer["correlation"])
        self.assertEqual(json.loads(run(*pairs, "--json").stdout), transfer)
        self.assertIn("correlation", run(*pairs).stdout)
        self.expect_error(["analyse", "routing", *common, "--method", "mean"], 2, "no route to look at")

    def test_skills_are_trained_with_how_tasks_mix_them(self):
        for recipe, more in (("poly", ()), ("mhr", ("--heads", 4))):
            with self.subTest(recipe):
                build = [*self.build, "--recipe", recipe, "--epochs", 6, *more, "--num-skills", 2]
                summary = json.loads(run(*build).stdout)
                self.assertEqual([a["name"] for a in summary["adapters"]], [f"{recipe}-0", f"{recipe}-1"])
                self.assertFalse(any(a["is_new"] for a in json.loads(run(*build).stdout)["adapters"]))
                self.expect_error([*build[:-1], 3], 3, "--force")
        table = json.loads(run("eval", "--base", TINY, "--library", self.library, "--data", self.data, "--tasks", "upstream", "--max-new-tokens", 2,
                               "--dtype", "float32", "--json", "--methods", "base,poly-mean,poly-oracle,mhr-mean,mhr-oracle,poly-arrow").stdout)
        nll = {row["method"]: row["mean"] for row in table["summary"] if row["metric"] == "nll"}
        for method in ("poly-mean", "mhr-mean"):
            with self.subTest(method):
                self.assertLess(nll[method], nll["base"])
        self.assertLess(nll["poly-oracle"], nll["poly-mean"])
        self.assertLess(nll["mhr-oracle"], nll["mhr-mean"])
        self.expect_error(["generate", "--base", TINY, "--library", self.library, "--kind", "poly", "--method", "task=alpa", "--prompt", "x"], 3, "'alpha'")
        run("library", "remove", "--library", self.library, "poly-1")
        self.expect_error(["generate", "--base", TINY, "--library", self.library, "--kind", "poly", "--method", "task=alpha", "--prompt", "x"], 3, "poly-1")


if __name__ == "__main__":
    main()
