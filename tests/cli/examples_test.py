"""The programs of examples/, with what the program prints for the same files.

Run as cli_test.py.
"""

import json
import os
import re
import shutil
import subprocess

from test_support import QUIVER, ROOT, TINY, Case, main, make_tasks, run, write_jsonl

PLAIN = ROOT / "tests/golden/peft/plain"
OTHER = ROOT / "tests/golden/peft/bf16"
PROMPT = "Task alpha. Say text."


def example(name, *args, check=0):
    done = subprocess.run([str(QUIVER.parent / f"example_{name}"), *map(str, args)], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "OMP_NUM_THREADS": "2"})
    if done.returncode != check:
        raise AssertionError(f"exit {done.returncode}, expected {check}: example_{name}\n{done.stderr}\n{done.stdout[-2000:]}")
    return done


def generated(adapter=None):
    """What the program continues the prompt with."""
    use = ["--adapter", adapter] if adapter else []
    return run("generate", "--base", TINY, *use, "--prompt", PROMPT, "--max-new-tokens", 32).stdout


class Examples(Case):
    def log_prob(self, context, continuation, adapter=None):
        requests = self.tmp / "requests.jsonl"
        write_jsonl(requests, [{"context": context, "continuation": continuation}])
        use = ["--adapter", adapter] if adapter else []
        return json.loads(run("score", "--base", TINY, "--dtype", "float32", *use, "--input", requests).stdout)["logprob"]

    def route(self, *adapters):
        """Log-probabilities of " positive" by the base and by the router, and the choices of each adapter by its name."""
        lines = example("router", TINY, PROMPT, " positive", *adapters).stdout.splitlines()
        scores = [float(re.fullmatch(rf"{name}: log p = (\S+)", line)[1]) for name, line in zip(["base", "routed"], lines)]
        choices = dict(re.fullmatch(r"(\S+): chosen (\d+) times", line).groups() for line in lines[2:])
        return *scores, {name: int(count) for name, count in choices.items()}

    def scaled(self, factor):
        """The plain adapter with `factor` times its alpha."""
        folder = self.tmp / f"scaled-{factor}"
        shutil.copytree(PLAIN, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["lora_alpha"] *= factor
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    def test_generate_prints_what_the_program_prints(self):
        text = example("generate", TINY, PLAIN, PROMPT).stdout
        self.assertEqual(text, generated(PLAIN))
        self.assertNotEqual(text, generated())

    def test_train_adapter_learns_and_leaves_a_folder_that_serves(self):
        tasks, output = make_tasks(self.tmp / "tasks"), self.tmp / "learnt"
        told = re.fullmatch(r"loss (\S+) at step 1, (\S+) at step (\d+)\n", example("train_adapter", TINY, tasks, "alpha", output).stdout)
        first, last, steps = float(told[1]), float(told[2]), int(told[3])
        self.assertEqual(steps, 8)  # 16 rows by 8, 4 epochs
        self.assertLess(last, 0.8 * first)
        self.assertEqual(json.loads((output / "adapter_config.json").read_text())["r"], 4)
        self.assertEqual(example("generate", TINY, output, PROMPT).stdout, generated(output))
        self.assertNotEqual(generated(output), generated())
        refused = example("train_adapter", TINY, tasks, "alpha", output, check=1)  # before it trains
        self.assertIn(str(output), refused.stderr)

    def test_router_chooses_the_longest_update(self):
        request = PROMPT, " positive"
        base, one, choices = self.route(PLAIN)
        self.assertAlmostEqual(base, self.log_prob(*request), delta=1e-3)
        self.assertAlmostEqual(one, self.log_prob(*request, PLAIN), delta=1e-3)
        self.assertGreater(abs(one - base), 0.01)
        # Of three adapters with the same factors, that of the largest scaling has the longest update of every token.
        half, double = self.scaled(0.5), self.scaled(2)
        _, routed, chosen = self.route(half, double, PLAIN)
        self.assertAlmostEqual(routed, self.log_prob(*request, double), delta=1e-3)
        self.assertEqual(chosen, {half.name: 0, double.name: choices["plain"], "plain": 0})
        # Of two with other factors, each serves some tokens.
        _, mixed, shares = self.route(PLAIN, OTHER)
        self.assertEqual(sum(shares.values()), choices["plain"])
        self.assertTrue(all(shares.values()), shares)
        self.assertGreater(min(abs(mixed - base), abs(mixed - one)), 0.01)

    def test_errors_are_told_once(self):
        for name, args, words in [("generate", [], "usage: example_generate BASE ADAPTER PROMPT"),
                                  ("generate", [TINY, self.tmp, PROMPT], "adapter_config.json"),
                                  ("train_adapter", [TINY, make_tasks(self.tmp / "tasks"), "alphq", self.tmp / "learnt"], "alphq"),
                                  ("router", [TINY, PROMPT, " positive", PLAIN, ROOT / "tests/golden/peft/one-module"], "one-module")]:
            with self.subTest(name):
                told = example(name, *args, check=1).stderr
                self.assertIn(words, told)
                self.assertEqual(told.count("\n"), 1)


if __name__ == "__main__":
    main()
