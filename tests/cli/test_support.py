"""What the tests of the program share: running it, tiny tasks, errors as a person meets them."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUIVER = pathlib.Path(os.environ.get("QUIVER_BUILD", ROOT / "build")) / "quiver"
TINY = ROOT / "tests/golden/model/llama-tied"
PYTHON = ROOT / ".venv/bin/python"


class RecordingResult(unittest.TextTestResult):
    """Keeps the skipped tests and their reasons beside GoogleTest's results (scripts/skipped_tests.py)."""

    def stopTestRun(self):
        super().stopTestRun()
        folder = os.environ.get("QUIVER_TEST_RESULTS")
        if folder:
            skipped = [[f"{type(test).__name__}.{test._testMethodName}", reason] for test, reason in self.skipped]
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            (pathlib.Path(folder) / f"{pathlib.Path(sys.argv[0]).stem}.json").write_text(json.dumps({"skipped": skipped}))


class RecordingRunner(unittest.TextTestRunner):
    resultclass = RecordingResult


def main():
    """Runs the tests of the program that calls it; -v names each."""
    unittest.main(testRunner=RecordingRunner)


def run(*args, check=0, stdin=None, env=None):
    done = subprocess.run([str(QUIVER), *map(str, args)], input=stdin, capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "OMP_NUM_THREADS": "2", **(env or {})})
    if check is not None and done.returncode != check:
        raise AssertionError(f"exit {done.returncode}, expected {check}: quiver {' '.join(map(str, args))}\n{done.stderr}\n{done.stdout[-2000:]}")
    return done


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_tasks(folder, names=("alpha", "beta", "gamma", "delta"), rows=24):
    """Tiny tasks with an instruction of their own, and valid and test rows."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(5)
    words = ["text", "answer", "review", "positive", "archer", "read", "twice", "negative"]
    for number, name in enumerate(names):
        lines = []
        for i in range(rows):
            split = "train" if i < rows - 8 else "valid" if i < rows - 4 else "test"
            source = " ".join(draw.choice(words) for _ in range(3))
            lines.append({"task": name, "split": split, "id": f"{name}-{i}", "instruction": f"Task {name}. Say {words[number]}.",
                          "input": source, "target": words[number]})
        write_jsonl(folder / f"{name}.jsonl", lines)
    return folder


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="quiver-cli-"))
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)

    def expect_error(self, done_args, code, *telling, **kwargs):
        done = run(*done_args, check=code, **kwargs)
        lines = done.stderr.strip().splitlines()
        self.assertTrue(lines[-1].startswith("quiver: "), done.stderr)
        for words in telling:
            self.assertIn(words, lines[-1])
        return lines[-1]

    def train_args(self, library, data, *more):
        args = ["train", "--base", TINY, "--data", data, "--library", library, "--dtype", "float32", "--batch-size", 4, "--lr", "1e-2", *more]
        return args if "--epochs" in args else [*args, "--epochs", 3]
