"""Verbs that write a line per row: lines come as they are made, and a run that was stopped goes on to the same bytes.

Run as cli_test.py.
"""

import json
import os
import signal
import subprocess
import time
import unittest

from test_support import QUIVER, ROOT, TINY, Case, main, make_tasks, run, write_jsonl


class Lines(Case):
    BASE = ["--base", TINY, "--dtype", "float32"]

    def score(self, *more):
        requests = self.tmp / "requests.jsonl"
        if not requests.exists():
            # Contexts recur, near and far, so that runs share prompts.
            write_jsonl(requests, [{"id": f"r{i}", "context": f"Task {i % 7}. " + "read the review twice " * (5 + i % 11), "continuation": f" text {i % 3}"}
                                   for i in range(500)])
        return ["score", *self.BASE, "--input", requests, *more]

    def generate(self, *more):
        prompts = self.tmp / "prompts.jsonl"
        if not prompts.exists():
            write_jsonl(prompts, [{"id": i, "prompt": f"Task {i % 7}. " + "read the review " * (5 + i % 9)} for i in range(200)])
        return ["generate", *self.BASE, "--input", prompts, "--max-new-tokens", 12, "--temperature", "0.8", *more]

    def start(self, args, **more):
        return subprocess.Popen([str(QUIVER), *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "2"}, **more)

    def stop(self, args, output, how):
        """Stops the command when some of its lines are there; returns its exit code and messages."""
        process = self.start([*args, "--output", output])
        lines = output.with_name(output.name + ".parts") / "lines.jsonl"
        deadline = time.monotonic() + 120
        while not (lines.exists() and lines.stat().st_size > 0) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(how)
        _, messages = process.communicate(timeout=120)
        self.assertFalse(output.exists(), "the run was over before it could be stopped")
        return process.returncode, messages, lines

    def test_a_killed_run_goes_on_to_the_same_bytes(self):
        library = self.tmp / "library"
        run(*self.train_args(library, make_tasks(self.tmp / "train", names=("alpha", "beta")), "--epochs", 1))
        gated = ["--library", library, "--calibration-prompts", 8]
        for name, args in {"scores": self.score(), "gated scores": self.score(*gated), "answers": self.generate(), "gated answers": self.generate(*gated)}.items():
            with self.subTest(name):
                whole, killed = self.tmp / f"{name} whole", self.tmp / f"{name} killed"
                run(*args, "--output", whole)
                code, _, lines = self.stop(args, killed, signal.SIGKILL)
                self.assertEqual(code, -signal.SIGKILL)
                kept = lines.read_text().count("\n")
                with lines.open("a") as file:
                    file.write('{"id":"r499","log')  # a line that a kill cut
                done = run(*args, "--output", killed)
                self.assertIn(f"{kept} lines were made before; they are kept", done.stderr)
                self.assertEqual(killed.read_bytes(), whole.read_bytes())
                self.assertFalse(lines.parent.exists())

    def test_lines_of_another_run_are_not_mixed_in(self):
        args, output = self.score(), self.tmp / "scores"
        self.stop(args, output, signal.SIGKILL)
        few = self.tmp / "few.jsonl"
        few.write_text("".join((self.tmp / "requests.jsonl").read_text().splitlines(keepends=True)[1:4]))
        done = run(*(few if a == self.tmp / "requests.jsonl" else a for a in args), "--output", output)
        self.assertIn("held lines of other input, options, adapters or base; they are dropped", done.stderr)
        self.assertEqual([json.loads(line)["id"] for line in output.read_text().splitlines()], ["r1", "r2", "r3"])

    def test_an_interrupted_run_says_what_is_kept(self):
        for name, args in {"requests": self.score(), "prompts": self.generate()}.items():
            with self.subTest(name):
                output = self.tmp / name
                code, messages, lines = self.stop(args, output, signal.SIGINT)
                self.assertEqual(code, 130, messages)
                kept = lines.read_text().count("\n")
                self.assertRegex(messages.splitlines()[-1],
                                 rf"stopped after {kept} of \d+ {name}; their lines are kept in '{lines.parent}', and the same command goes on there")

    def test_lines_come_as_they_are_made(self):
        for name, args in {"requests": self.score(), "prompts": self.generate()}.items():
            with self.subTest(name):
                with self.start(args) as process:
                    first = json.loads(process.stdout.readline())
                    self.assertIn(first["id"], ("r0", 0))
                    self.assertIsNone(process.poll())
                    process.send_signal(signal.SIGINT)
                    rest, messages = process.stdout.read(), process.stderr.read()
                self.assertEqual(process.returncode, 130, messages)
                self.assertIn(f"stopped after {1 + rest.count(chr(10))} of", messages)
                self.assertIn("their lines are printed, and the same command starts from the first", messages)


if __name__ == "__main__":
    main()
