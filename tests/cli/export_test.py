"""`quiver export`: what PEFT and transformers compute with what it wrote."""

import json
import shutil
import string
import subprocess
import unittest

from test_support import PYTHON, ROOT, TINY, Case, main, make_tasks, run, write_jsonl

ADAPTER = ROOT / "tests/golden/peft/all-linears"

COMPARE = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, exported, form = sys.argv[1:5]
options = dict(dtype=torch.float32, attn_implementation="eager")
tokens = torch.tensor([[3, 10, 20, 31, 7, 54, 200, 9]])
with torch.no_grad():
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, **options), adapter).eval()(tokens).logits
    if form == "peft":
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, **options), exported).eval()
    elif form == "gguf":
        model = AutoModelForCausalLM.from_pretrained(exported.rpartition("/")[0], gguf_file="gguf", **options)
    else:
        model = AutoModelForCausalLM.from_pretrained(exported, **options)
    print(((model(tokens).logits - expected).abs().max() / expected.abs().max()).item())
"""

SAME = """
import sys, torch
from transformers import AutoModelForCausalLM
tokens = torch.arange(3, 40)[None]
for base, exported in zip(sys.argv[1::2], sys.argv[2::2]):
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager") for path in (base, exported)]
    with torch.no_grad():
        expected, found = (model(tokens).logits for model in models)
    print(type(models[0]) is type(models[1]), ((found - expected).abs().max() / expected.abs().max()).item())
"""


class Export(Case):
    def export(self, form, *more, adapter=("--adapter", ADAPTER), check=0):
        other = ["--allow-other-base"] if adapter else []
        return run("export", "--base", TINY, *adapter, *other, "--format", form, "--output", self.tmp / form, "--json", *more, check=check)

    def difference(self, form):
        done = subprocess.run([str(PYTHON), "-c", COMPARE, str(TINY), str(ADAPTER), str(self.tmp / form), form], capture_output=True, text=True, check=True)
        return float(done.stdout)

    def test_transformers_computes_with_a_merged_model_what_peft_computes(self):
        result = json.loads(self.export("hf", "--type", "f32").stdout)
        self.assertEqual((result["form"], result["type"]), ("hf", "F32"))
        self.assertLess(self.difference("hf"), 1e-5)
        card = (self.tmp / "hf" / "README.md").read_text()
        self.assertIn("library_name: transformers", card)
        self.assertIn("base_model:", card)

    def test_transformers_reads_the_folder_that_a_gguf_file_becomes(self):
        families = ("gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "olmo2", "phi", "phi3-long", "qwen3", "smollm3", "stablelm-parallel")
        tokenizer = {"added_tokens": [], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                     "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(string.ascii_letters)}, "merges": []}}
        pairs = []
        for family in families:
            base = self.tmp / family
            shutil.copytree(ROOT / "tests/golden/families" / family, base)
            (base / "tokenizer.json").write_text(json.dumps(tokenizer))
            run("export", "--base", base, "--format", "gguf", "--type", "f32", "--output", self.tmp / f"{family}.gguf")
            run("export", "--base", self.tmp / f"{family}.gguf", "--format", "hf", "--type", "f32", "--output", self.tmp / f"{family}-again")
            pairs += [base, self.tmp / f"{family}-again"]
            self.assertTrue((self.tmp / f"{family}-again" / "tokenizer.gguf").exists())
        done = subprocess.run([str(PYTHON), "-c", SAME, *map(str, pairs)], capture_output=True, text=True, check=True)
        for family, line in zip(families, done.stdout.splitlines(), strict=True):
            with self.subTest(family):
                is_same_class, difference = line.split()
                self.assertEqual(is_same_class, "True")
                self.assertLess(float(difference), 2e-6)

    def test_transformers_reads_a_merged_gguf_file(self):
        for kind, tolerance in (("f32", 1e-5), ("q8_0", 0.1)):
            with self.subTest(kind):
                self.export("gguf", "--type", kind, "--force")
                self.assertLess(self.difference("gguf"), tolerance)
        # And Quiver, with the same tokenizer.
        self.export("gguf", "--type", "f32", "--force")
        whole = self.tmp / "whole.gguf"
        shutil.copy(self.tmp / "gguf", whole)
        requests = self.tmp / "requests.jsonl"
        write_jsonl(requests, [{"context": "read the review", "continuation": " positive"}])
        scores = [json.loads(run("score", "--input", requests, "--dtype", "float32", "--no-chat", *with_base).stdout)["logprob"]
                  for with_base in (("--base", TINY, "--adapter", ADAPTER, "--allow-other-base"), ("--base", whole))]
        self.assertAlmostEqual(*scores, delta=1e-4)

    def test_a_gguf_file_may_become_another(self):
        base = ROOT / "tests/golden/model/llama-mixed.gguf"
        whole = self.tmp / "whole.gguf"
        run("export", "--base", base, "--format", "gguf", "--type", "f32", "--output", whole)
        requests = self.tmp / "requests.jsonl"
        write_jsonl(requests, [{"context": "read the review", "continuation": " positive"}])
        scores = [json.loads(run("score", "--input", requests, "--dtype", "float32", "--base", path).stdout) for path in (base, whole)]
        self.assertEqual(*scores)

    def test_peft_computes_the_same_with_an_exported_adapter(self):
        self.export("peft")
        self.assertLess(self.difference("peft"), 1e-5)

    def test_a_card_names_tasks_and_losses(self):
        library = self.tmp / "library"
        run("train", "--base", TINY, "--data", make_tasks(self.tmp / "train", names=("alpha",)), "--library", library, "--dtype", "float32",
            "--epochs", 1, "--validate", 4)
        self.export("peft", adapter=("--library", library, "--method", "oracle=alpha"))
        card = (self.tmp / "peft" / "README.md").read_text()
        for line in ('datasets:\n- "alpha"', "metrics:\n- eval_loss\n- train_loss", "model-index:", "type: train_loss", "tags:\n- lora"):
            self.assertIn(line, card)

    def test_what_is_there_is_kept(self):
        self.export("hf")
        self.assertIn("--force", self.export("hf", check=2).stderr)
        self.export("hf", "--force")
        (self.tmp / "hf" / "mine.txt").write_text("mine")
        self.assertIn("mine.txt", self.export("hf", "--force", check=2).stderr)
        (self.tmp / "peft").mkdir()
        (self.tmp / "peft" / "mine.txt").write_text("mine")
        self.assertIn("no adapter folder", self.export("peft", "--force", check=2).stderr)

    def test_what_cannot_be_written_is_refused_before_the_work(self):
        self.assertIn("give --adapter or --library", self.export("peft", adapter=(), check=2).stderr)
        self.assertIn("--format 'onnx' is not one of peft, gguf-lora, hf, gguf", self.export("onnx", check=2).stderr)
        self.assertIn("--type 'q4_0' is not one of", self.export("hf", "--type", "q4_0", check=2).stderr)
        self.assertIn("safetensors files hold no Q8_0", self.export("hf", "--type", "q8_0", check=2).stderr)
        (self.tmp / "gguf").write_text("mine")
        self.assertIn("is no GGUF file", self.export("gguf", "--force", check=2).stderr)
        self.assertIn("adapters are not written as Q8_0", self.export("gguf-lora", "--type", "q8_0", check=2).stderr)
        self.assertIn("it does not make one adapter", self.export("hf", adapter=("--library", self.tmp, "--method", "arrow"), check=2).stderr)


if __name__ == "__main__":
    main()
