"""Trainings that are killed, interrupted or run side by side end as those that are left alone.

Run as cli_test.py.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import time

from test_support import QUIVER, ROOT, TINY, Case, main, make_tasks, run


class Resumption(Case):
    def test_killed_at_random_moments_the_adapters_are_bit_identical(self):
        data = make_tasks(self.tmp / "train", names=("alpha", "beta"), rows=200)
        whole, killed = self.tmp / "whole", self.tmp / "killed"
        more = ("--dropout", "0.1", "--epochs", 4, "--checkpoint-seconds", "0")
        started = time.monotonic()
        run(*self.train_args(whole, data, *more))
        length = time.monotonic() - started
        draw = random.Random(11)
        kills = 0
        while True:
            process = subprocess.Popen([str(QUIVER), *map(str, self.train_args(killed, data, *more))], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                                       env={**os.environ, "OMP_NUM_THREADS": "2"})
            try:
                process.communicate(timeout=length * draw.uniform(0.25, 0.7) if kills < 5 else None)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
        self.assertEqual(process.returncode, 0)
        self.assertGreaterEqual(kills, 1)
        for name in ("alpha", "beta"):
            file = pathlib.Path("adapters") / name / "adapter_model.safetensors"
            self.assertEqual((whole / file).read_bytes(), (killed / file).read_bytes(), name)
        self.assertEqual(list((killed / "checkpoints").iterdir()), [])

    def test_adapters_trained_together_are_what_they_are_alone(self):
        data = make_tasks(self.tmp / "train")
        alone = json.loads(run(*self.train_args(self.tmp / "alone", data, "--json")).stdout.splitlines()[-1])
        args = self.train_args(self.tmp / "together", data, "--together", 3, "--json")
        together = json.loads(run(*args).stdout.splitlines()[-1])
        self.assertEqual([a["name"] for a in together["adapters"]], [a["name"] for a in alone["adapters"]])
        for a, b in zip(alone["adapters"], together["adapters"]):
            self.assertAlmostEqual(a["last_loss"], b["last_loss"], places=4)
            self.assertEqual((a["steps"], a["tokens"]), (b["steps"], b["tokens"]))
        self.assertFalse(any(a["is_new"] for a in json.loads(run(*args).stdout.splitlines()[-1])["adapters"]))
        self.assertEqual(list((self.tmp / "together/checkpoints").iterdir()), [])
        self.expect_error(self.train_args(self.tmp / "no", data, "--together", 2, "--dropout", "0.1"), 3, "dropout")

    def test_interrupt_stops_at_a_safe_point_and_says_where(self):
        data = make_tasks(self.tmp / "train", names=("alpha",), rows=400)
        process = subprocess.Popen([str(QUIVER), *map(str, self.train_args(self.tmp / "library", data, "--epochs", 200))], cwd=ROOT,
                                   stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (self.tmp / "library/checkpoints").exists() and time.monotonic() < deadline:  # training is about to begin
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn("stopped after step", err)
        self.assertTrue((self.tmp / "library/checkpoints/alpha.safetensors").exists())

    def test_a_second_interrupt_ends_at_once(self):
        data = make_tasks(self.tmp / "train", names=("alpha",), rows=12000)  # one long step
        args = ["train", "--base", TINY, "--data", data, "--library", self.tmp / "library", "--dtype", "float32", "--epochs", 1,
                "--batch-size", 12000, "--share-prefixes", "off"]
        process = subprocess.Popen([str(QUIVER), *map(str, args)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (self.tmp / "library/checkpoints").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, -signal.SIGINT)
        again = json.loads(run(*args, "--json").stdout.splitlines()[-1])
        self.assertTrue(again["adapters"][0]["is_new"])


if __name__ == "__main__":
    main()
