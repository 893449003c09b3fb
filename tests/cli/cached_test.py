"""What was computed once is used again, and never for other inputs: every row changes one input between two runs of the program.

The second run finds what the first one kept. It must print what it prints where nothing is kept.
"""

import json
import shutil
import struct
import unittest

from test_support import TINY, Case, main, make_tasks, run, write_jsonl

FLOAT = ["--dtype", "float32"]


def change_a_weight(folder):
    """Copies the tiny base, with one weight changed in the middle of a tensor, where the fingerprint takes no sample."""
    shutil.copytree(TINY, folder)
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    size = int.from_bytes(raw[:8], "little")
    begin, end = json.loads(raw[8:8 + size])["model.layers.0.self_attn.q_proj.weight"]["data_offsets"]
    middle = 8 + size + (begin + end) // 2
    raw[middle:middle + 4] = struct.pack("<f", 3.0)
    file.write_bytes(raw)
    return folder


class Cached(Case):
    def setUp(self):
        super().setUp()
        self.data = make_tasks(self.tmp / "data/train", names=("alpha", "beta", "gamma"))
        self.library = self.tmp / "library"
        run(*self.train_args(self.library, self.data, "--epochs", 4))
        self.requests = self.tmp / "requests.jsonl"
        write_jsonl(self.requests, [{"id": i, "context": f"Task {name}. Say", "continuation": " text"} for i, name in enumerate(["alpha", "beta", "x"])])

    def score(self, *more, base=TINY):
        return run("score", "--base", base, "--input", self.requests, *FLOAT, "--library", self.library, *more).stdout

    def forget(self):
        shutil.rmtree(self.library / "artifacts")

    def expect_as_anew(self, compute):
        """compute() gives with all that is kept what it gives with nothing."""
        kept = compute()
        self.forget()
        self.assertEqual(kept, compute())
        return kept

    def test_gates_are_of_the_adapters_less_the_general_ones(self):
        args = ["--method", "phatgoose", "--adapters", "alpha,beta", "--task-data", self.data, "--gate-steps", 8]
        plain = self.score(*args)
        self.assertNotEqual(plain, self.expect_as_anew(lambda: self.score(*args, "--general", "gamma")))

    def test_an_adapter_changed_in_place(self):
        methods = ("arrow", "gated-arrow")
        before = {method: self.score("--method", method) for method in methods}
        alpha, beta = (self.library / "adapters" / name / "adapter_model.safetensors" for name in ("alpha", "beta"))
        alpha.write_bytes(beta.read_bytes())
        for method in methods:
            with self.subTest(method):
                self.assertNotEqual(before[method], self.expect_as_anew(lambda: self.score("--method", method)))

    def test_a_base_that_differs_in_one_weight(self):
        other = change_a_weight(self.tmp / "other")
        for method in ("gated-arrow", "centroids", "retrieval", "task-predictor", "phatgoose"):
            with self.subTest(method):
                args = ["--method", method] + (["--task-data", self.data] if "arrow" not in method else []) + (["--gate-steps", 4] if method == "phatgoose" else [])
                self.assertNotEqual(self.score(*args), self.expect_as_anew(lambda: self.score(*args, base=other)))
        train = ["train", "--base", other, "--data", self.data, "--library", self.library, *FLOAT, "--batch-size", 4, "--lr", "1e-2", "--epochs", 4]
        self.expect_error(train, 3, "'alpha'", "other settings, data, dtype or base", "--force")

    def evaluate(self, *more, base=TINY):
        results = json.loads(run("eval", "--base", base, "--library", self.library, "--data", self.tmp / "data", "--tasks", "alpha", *FLOAT,
                                 "--json", "--max-new-tokens", 3, *more).stdout)
        return results["summary"], results["base"]

    def test_an_evaluation_of_another_base(self):
        other = change_a_weight(self.tmp / "other")
        args = ["--methods", "base,private-arrow"]
        first, name = self.evaluate(*args, "--work", self.tmp / "work")
        second, other_name = self.evaluate(*args, "--work", self.tmp / "work", base=other)
        self.assertNotEqual(first, second)
        self.assertEqual(second, self.evaluate(*args, base=other)[0])
        self.assertEqual(name["fingerprint"], other_name["fingerprint"])
        self.assertNotEqual(name["content"], other_name["content"])

    def test_an_evaluation_with_other_rows_of_task_data(self):
        rows = shutil.copytree(self.data, self.tmp / "rows")
        args = ["--methods", "private-retrieval", "--top-k", 1, "--task-data", rows]
        work = ["--work", self.tmp / "work"]
        first = self.evaluate(*args, *work)
        texts = {name: (rows / f"{name}.jsonl").read_text() for name in ("alpha", "beta")}
        (rows / "alpha.jsonl").write_text(texts["beta"])
        (rows / "beta.jsonl").write_text(texts["alpha"])
        second = self.evaluate(*args, *work)
        self.assertNotEqual(first, second)
        self.assertEqual(second, self.evaluate(*args))

    def test_a_tokenizer_that_changed_with_equal_weights(self):
        other = shutil.copytree(TINY, self.tmp / "other")
        description = json.loads((other / "tokenizer.json").read_text())
        description["model"]["merges"] = description["model"]["merges"][:-20]  # texts become more tokens
        (other / "tokenizer.json").write_text(json.dumps(description))
        args = ["--methods", "base,private-arrow"]
        first = self.evaluate(*args, "--work", self.tmp / "work")
        second = self.evaluate(*args, "--work", self.tmp / "work", base=other)
        self.assertNotEqual(first, second)
        self.assertEqual(second, self.evaluate(*args, base=other))
        train = ["train", "--base", other, "--data", self.data, "--library", self.library, *FLOAT, "--batch-size", 4, "--lr", "1e-2", "--epochs", 4]
        self.expect_error(train, 3, "'alpha'", "--force")


if __name__ == "__main__":
    main()
