"""Real vocabularies: `quiver tokenize` gives the ids and the texts of `tokenizers` (scripts/check_tokenizer.py)."""

import subprocess
import unittest

from test_support import PYTHON, QUIVER, ROOT, main

MISSING = 77  # the script's exit code where a vocabulary was not fetched


class Vocabularies(unittest.TestCase):
    """20,000 texts encoded by each vocabulary, and as many lists of ids decoded."""

    def check(self, name):
        if not (ROOT / ".venv/quiver-test").exists():
            self.skipTest("the Python originals are missing: scripts/setup.sh --test installs them")
        command = [PYTHON, ROOT / "scripts/check_tokenizer.py", "--program", QUIVER, "--random", "20000", "--vocabularies", name]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode == MISSING:
            self.skipTest(done.stderr.strip())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_llama2(self):
        self.check("llama2")

    def test_llama3(self):
        self.check("llama3")

    def test_gemma3(self):
        self.check("gemma3")

    def test_qwen3(self):
        self.check("qwen3")

    def test_llama_spm(self):
        self.check("llama_spm")

    def test_phi_3(self):
        self.check("phi_3")

    def test_mistral_v1(self):
        self.check("mistral_v1")

    def test_mistral_v3(self):
        self.check("mistral_v3")

    def test_tekken(self):
        self.check("tekken")

    def test_gpt_4o(self):
        self.check("gpt_4o")


if __name__ == "__main__":
    main()
