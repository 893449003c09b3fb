"""The program as a person or a script meets it: output, errors and exit codes.

Run by ctest with QUIVER_BUILD naming the build folder; needs only Python's standard library, and PEFT (in .venv) for
the one test that loads what Quiver wrote.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from test_support import PYTHON, QUIVER, ROOT, TINY, Case, main, make_tasks, run, write_jsonl


class Verbs(Case):
    def test_help_names_every_verb(self):
        text = run("--help").stdout
        for verb in ("fetch", "tokenize", "score", "generate", "train", "cluster", "build", "library", "adapt", "eval", "merge", "methods", "route",
                     "report", "selfcheck"):
            with self.subTest(verb):
                self.assertIn(verb, text)
                self.assertIn("--json", run(verb, "--help").stdout if verb != "library" else run(verb, "ls", "--help").stdout)

    def test_options_that_methods_lists_are_options(self):
        listed = json.loads(run("methods", "--json").stdout)
        names = [line["name"] for section in ("steps", "options") for line in listed[section]]
        self.assertIn("--general NAMES", names)
        for name in names:
            verb = name.split("--")[0].split() or ["score"]
            for option in (word for word in name.split() if word.startswith("--")):
                self.assertRegex(run(*verb, "--help").stdout, re.escape(option) + r"(?![\w-])", name)

    def test_a_wrong_option_names_the_verbs_whose_help_tells(self):
        self.expect_error(["bench", "routing", "--method", "lag"], 2, "'--method'", "see 'quiver bench routing --help'")
        self.expect_error(["scor"], 2, "see 'quiver --help'")

    def test_threads_spin_for_a_bounded_time_unless_the_user_says_otherwise(self):
        quiet = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}

        def spin_count(**more):
            done = subprocess.run([str(QUIVER), "--version"], env={**quiet, "OMP_DISPLAY_ENV": "verbose", **more}, capture_output=True, text=True, check=True)
            self.assertEqual(done.stdout, "quiver 0.1.0\n")
            return int(re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr).group(1))

        self.assertIn(spin_count(), range(500, 20001))
        self.assertEqual(spin_count(GOMP_SPINCOUNT="77"), 77)
        self.assertEqual(spin_count(OMP_WAIT_POLICY="passive"), 0)

    def test_an_instruction_set_that_there_is_not_is_refused(self):
        done = run("generate", "--base", TINY, "--prompt", "a", check=2, env={"QUIVER_ISA": "v5"})
        self.assertIn("QUIVER_ISA is 'v5'; expected v2, v3 or v4", done.stderr)

    def test_base_weights_are_checked(self):
        self.expect_error(["generate", "--base", TINY, "--prompt", "a", "--base-weights", "int4"], 2, "--base-weights 'int4' is not one of auto, dense, quantized")
        self.expect_error(["generate", "--base", TINY, "--prompt", "a", "--base-weights", "quantized"], 2, "--base-weights quantized", "Q8_0, Q4_0 or Q4_1")
        self.expect_error(["score", "--base", TINY, "--input", "-", "--base-weights", "quantized", "--dtype", "bfloat16"], 2, "computes in float32")

    def test_tokenize_and_decode_are_inverse(self):
        text = 'Is the answer in the text?\ncafé 12 "quoted"\n'
        ids = run("tokenize", "--base", TINY, stdin=text).stdout
        self.assertEqual(set(json.loads(ids.splitlines()[0])), {"ids"})
        decoded = [json.loads(line)["text"] for line in run("tokenize", "--base", TINY, "--decode", stdin=ids).stdout.splitlines()]
        self.assertEqual(decoded, text.splitlines())

    def test_a_base_whose_files_disagree_is_used_with_a_warning(self):
        gguf = self.tmp / "unnamed.gguf"
        gguf.write_bytes((ROOT / "tests/golden/model/llama-mixed.gguf").read_bytes().replace(b"tokenizer.ggml.pre", b"tokenizer.ggml.prX"))
        for done in (run("tokenize", "--base", gguf, stdin="text\n"), run("generate", "--base", gguf, "--prompt", "a", "--max-new-tokens", 1)):
            self.assertIn("has no tokenizer.ggml.pre: its text is cut as by 'default'", done.stderr)
        tied = self.tmp / "tied"
        shutil.copytree(TINY, tied)
        raw = (tied / "model.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header, data = json.loads(raw[8:8 + size]), raw[8 + size:]
        begin, end = header["model.embed_tokens.weight"]["data_offsets"]
        header["lm_head.weight"] = {**header["model.embed_tokens.weight"], "data_offsets": [len(data), len(data) + end - begin]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        head = data[begin:end]
        for values, warns in ((head, False), (head[:2] + bytes([head[2] ^ 1]) + head[3:], True)):
            (tied / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data + values)
            done = run("generate", "--base", tied, "--prompt", "a", "--max-new-tokens", 1)
            self.assertEqual("lm_head.weight has values of its own" in done.stderr, warns, done.stderr)

    def test_score_writes_a_line_per_request(self):
        requests = self.tmp / "requests.jsonl"
        write_jsonl(requests, [{"id": "a", "context": "Is the answer", "continuation": " in the text"}, {"id": 7, "context": "x", "continuation": " y"}])
        run("score", "--base", TINY, "--input", requests, "--output", self.tmp / "scores.jsonl", "--dtype", "float32")
        rows = [json.loads(line) for line in (self.tmp / "scores.jsonl").read_text().splitlines()]
        self.assertEqual([row["id"] for row in rows], ["a", 7])
        for row in rows:
            self.assertAlmostEqual(row["logprob"], sum(row["token_logprobs"]), places=5)
            self.assertEqual(row["num_tokens"], len(row["token_logprobs"]))
            self.assertIsInstance(row["is_greedy"], bool)
        self.expect_error(["score", "--base", TINY, "--input", requests, "--output", self.tmp / "scores.jsonl"], 2, "--force")

    def test_generate_is_reproducible(self):
        args = ["generate", "--base", TINY, "--prompt", "Is the answer", "--max-new-tokens", 12, "--dtype", "float32", "--json",
                "--temperature", "0.8", "--top-p", "0.9"]
        first = json.loads(run(*args, "--seed", 1).stdout)
        self.assertEqual(first, json.loads(run(*args, "--seed", 1).stdout))
        self.assertNotEqual(first, json.loads(run(*args, "--seed", 2).stdout))
        args[args.index("--temperature")] = "--sampling-temperature"
        renamed = run(*args, "--seed", 1)
        self.assertIn("--sampling-temperature is called --temperature now", renamed.stderr)
        self.assertEqual(first, json.loads(renamed.stdout))

    def test_selfcheck_passes(self):
        result = json.loads(run("selfcheck", "--json").stdout)
        self.assertTrue(result["passed"], result)


class Library(Case):
    def test_the_whole_job_on_a_tiny_model(self):
        data = self.tmp / "data"
        make_tasks(data / "train")
        make_tasks(data / "heldout_sni", names=("epsilon",))
        (data / "heldout_mc").mkdir()
        write_jsonl(data / "heldout_mc" / "quiz.jsonl", [
            {"task": "quiz", "split": "test", "id": str(i), "mode": "choice", "context": "Question: text?\nAnswer:",
             "choices": ["positive", "negative"], "label": i % 2} for i in range(6)])
        library = self.tmp / "library"
        build = ["build", "--base", TINY, "--data", data / "train", "--library", library, "--dtype", "float32", "--epochs", 4,
                 "--batch-size", 4, "--lr", "2e-2", "--json"]
        summary = json.loads(run(*build, "--recipe", "mbc", "--num-clusters", 2).stdout)
        self.assertEqual(len(summary["adapters"]), 6)
        self.assertEqual(summary["total"]["tokens"], sum(a["tokens"] for a in summary["adapters"]))
        for adapter in summary["adapters"]:
            self.assertLess(adapter["last_loss"], adapter["first_loss"])
            self.assertLess(adapter["rows"], adapter["tokens"])
        run(*build, "--recipe", "shared")
        again = json.loads(run(*build, "--recipe", "mbc", "--num-clusters", 2).stdout)
        self.assertFalse(any(a["is_new"] for a in again["adapters"]))
        results = self.tmp / "results.json"
        table = run("eval", "--base", TINY, "--library", library, "--data", data, "--methods", "all", "--tasks",
                    "upstream,sni,mc", "--max-new-tokens", 6, "--dtype", "float32", "--output", results).stdout
        for label in ("Private, Arrow", "Private, gated Arrow", "Cluster, LAG"):
            with self.subTest(label):
                self.assertIn(label + " ", table)
        parsed = json.loads(results.read_text())
        nll = {row["method"]: row["mean"] for row in parsed["summary"] if row["section"] == "train" and row["metric"] == "nll"}
        self.assertEqual(len(nll), 12)
        self.assertLess(nll["private-oracle"], nll["base"])
        self.assertLess(nll["private-arrow"], nll["base"])
        base_samples = [s for s in parsed["samples"] if s["method"] == "base" and s["section"] == "train"]
        self.assertEqual(len(base_samples), 16)
        page = self.tmp / "report.html"
        run("report", results, "--output", page)
        self.assertIn("<svg", page.read_text())
        self.assertNotIn("http://", page.read_text().replace("http://www.w3.org/", ""))
        self.assertEqual(run("library", "verify", "--library", library).stdout.strip(), "all is well")
        self.every_method(library, data)
        self.merges(library)
        self.routes(library)

    def every_method(self, library, data):
        methods = [m["name"] for m in json.loads(run("methods", "--json").stdout)["methods"] if "=" not in m["name"]]
        self.assertIn("arrow", methods)
        table = json.loads(run("eval", "--base", TINY, "--library", library, "--data", data, "--tasks", "upstream/alpha", "--max-new-tokens", 2,
                               "--task-data", data / "train", "--calibration-prompts", 8, "--dtype", "float32", "--json",
                               "--methods", ",".join(["base", *(f"private-{m}" for m in methods)])).stdout)
        found = {row["method"] for row in table["summary"]}
        self.assertEqual(found, {"base", *(f"private-{m}" for m in methods)})
        self.expect_error(["eval", "--base", TINY, "--library", library, "--data", data, "--tasks", "upstream/alpha", "--methods", "private-arow"],
                          2, "arrow", "quiver methods")

    def merges(self, library):
        requests = self.tmp / "merge-requests.jsonl"
        write_jsonl(requests, [{"id": i, "context": f"Task {name}. Say", "continuation": " text"} for i, name in enumerate(["alpha", "beta", "x"])])

        def scores(*args):
            lines = run("score", "--base", TINY, "--input", requests, "--dtype", "float32", *args).stdout.splitlines()
            return [json.loads(line)["logprob"] for line in lines]

        self.assertEqual(scores("--library", library), scores("--library", library, "--method", "gated-arrow"))  # the default
        # The exact concatenation equals mixing all outputs at run time, equally.
        weights = ["--weights", "0.25,0.25,0.25,0.25"]
        merged = self.tmp / "merged"
        answer = json.loads(run("merge", "--base", TINY, "--library", library, "--method", "cat", *weights, "--output", merged, "--json").stdout)
        self.assertEqual(answer["rank"], 16)
        mixed = scores("--library", library, "--method", "arrow", "--top-k", 4, "--routing-temperature", "1e30", "--combine", "outputs")
        for a, b, c in zip(scores("--adapter", merged), mixed, scores("--library", library, "--method", "cat", *weights)):
            self.assertAlmostEqual(a, b, places=3)
            self.assertAlmostEqual(a, c, places=4)
        self.assertEqual(scores("--library", library, "--method", "cat(weights=[0.25,0.25,0.25,0.25])"),
                         scores("--library", library, "--method", "cat", *weights))
        named = scores("--library", library, "--method", "cat", "--adapters", "beta,alpha", "--weights", "beta=1,alpha=0")
        for a, b in zip(named, scores("--library", library, "--method", "oracle=beta")):
            self.assertAlmostEqual(a, b, places=3)
        self.expect_error(["merge", "--base", TINY, "--library", library, "--output", merged], 2, "--force replaces it")
        self.expect_error(["merge", "--base", TINY, "--library", library, "--method", "arrow", "--output", self.tmp / "no"], 2, "one adapter")
        self.expect_error(["merge", "--base", TINY, "--library", library, "--density", "0.5", "--output", self.tmp / "no"], 2, "--density is read by ties", "not by mean")

    def routes(self, library):
        args = ["route", "--base", TINY, "--library", library, "--prompt", "Task alpha. Say text.", "--dtype", "float32"]
        trace = json.loads(run(*args, "--method", "gated-arrow", "--calibration-prompts", 8, "--json").stdout)
        self.assertEqual(trace["adapters"], ["alpha", "beta", "delta", "gamma"])
        self.assertEqual("".join(t["text"] for t in trace["tokens"]), "Task alpha. Say text.")
        for projection in trace["projections"]:
            for choice in projection["choices"]:
                self.assertAlmostEqual(sum(weight for _, weight in choice), 1, places=4)
        self.assertAlmostEqual(sum(trace["statistics"]["shares"]), 1, places=4)
        self.assertIn("agreement of projections", run(*args, "--trace").stdout)
        renamed = run(*args, "--method", "arrow", "--temperature", 2, "--json")
        self.assertIn("--temperature is called --routing-temperature now", renamed.stderr)
        self.assertEqual(renamed.stdout, run(*args, "--method", "arrow", "--routing-temperature", 2, "--json").stdout)
        self.assertEqual(renamed.stdout, run(*args, "--method", "private/arrow(routing_temperature=2)", "--json").stdout)
        self.assertNotEqual(json.loads(renamed.stdout)["statistics"], json.loads(run(*args, "--method", "arrow", "--json").stdout)["statistics"])
        tied = json.loads(run(*args, "--method", "arrow", "--tie", "q_proj,k_proj,v_proj", "--json").stdout)
        by_path = {p["path"]: p["choices"] for p in tied["projections"]}
        self.assertEqual(by_path["layers.0.self_attn.q_proj"], by_path["layers.0.self_attn.v_proj"])
        self.assertNotEqual(by_path["layers.0.self_attn.q_proj"], by_path["layers.1.self_attn.q_proj"])
        free = {p["path"]: p["choices"] for p in json.loads(run(*args, "--method", "arrow", "--json").stdout)["projections"]}
        self.assertNotEqual(free["layers.0.self_attn.q_proj"], free["layers.0.self_attn.v_proj"])
        self.expect_error([*args, "--method", "arrow", "--tie", "q_proj,o_proj"], 2, "'o_proj' cannot be tied")
        page = self.tmp / "route.html"
        run(*args, "--html", page)
        self.assertIn("<button class=\"tok\">", page.read_text())
        self.expect_error([*args, "--html", page], 2, "--force")
        self.expect_error([*args, "--method", "mean"], 2, "no route to look at")

    @unittest.skipUnless(PYTHON.exists() and (ROOT / ".venv/quiver-test").exists(), "PEFT is not installed")
    def test_peft_loads_what_quiver_wrote_and_quiver_loads_what_peft_wrote(self):
        data = make_tasks(self.tmp / "train", names=("alpha",))
        library = self.tmp / "library"
        run(*self.train_args(library, data, "--target-modules", "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"))
        exported = self.tmp / "exported"
        run("library", "export", "--library", library, "alpha", exported)
        # What Quiver computes with the adapter, as greedy tokens and log-probabilities, is what PEFT computes.
        script = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
base, adapter, text = sys.argv[1:4]
model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=base + '/tokenizer.json')
context, whole = (tokenizer(t, add_special_tokens=False)['input_ids'] for t in (text, text + ' positive'))
with torch.no_grad():
    logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
print(json.dumps([logits[i - 1, whole[i]].item() for i in range(len(context), len(whole))]))
"""
        text = "Task alpha. Say text.\n\nread the review"
        expected = json.loads(subprocess.run([str(PYTHON), "-c", script, str(TINY), str(exported), text], capture_output=True, text=True, check=True).stdout)
        requests = self.tmp / "r.jsonl"
        write_jsonl(requests, [{"id": 0, "context": text, "continuation": " positive"}])
        for choice in (["--adapter", exported], ["--library", library, "--method", "oracle=alpha"], ["--library", library, "--method", "arrow", "--top-k", 1]):
            with self.subTest(choice):
                row = json.loads(run("score", "--base", TINY, "--input", requests, "--dtype", "float32", *choice).stdout)
                for mine, theirs in zip(row["token_logprobs"], expected, strict=True):
                    self.assertAlmostEqual(mine, theirs, delta=1e-4)
        # And the other way: a folder of PEFT's own, added to a library.
        run("library", "add", "--library", library, "--base", TINY, "--name", "theirs", "--allow-other-base", ROOT / "tests/golden/peft/all-linears")
        self.assertIn("theirs", run("library", "ls", "--library", library).stdout)
        run("library", "export", "--library", library, "theirs", self.tmp / "theirs")
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            given = (ROOT / "tests/golden/peft/all-linears" / file).read_bytes()
            self.assertEqual((library / "adapters/theirs" / file).read_bytes(), given, file)
            self.assertEqual((self.tmp / "theirs" / file).read_bytes(), given, file)
        entry = json.loads(run("library", "show", "--library", library, "theirs").stdout)
        self.assertTrue(entry["as_given"])
        self.assertEqual(entry["config_sha256"], hashlib.sha256((ROOT / "tests/golden/peft/all-linears/adapter_config.json").read_bytes()).hexdigest())
        self.assertEqual(run("library", "verify", "--library", library).stdout.strip(), "all is well")
        self.assertNotIn("warning", run("score", "--base", TINY, "--library", library, "--method", "oracle=theirs", "--input", requests).stderr)

    def test_adds_many_folders_at_once(self):
        library = self.tmp / "library"
        peft = ROOT / "tests/golden/peft"
        add = ["library", "add", "--library", library, "--base", TINY, "--allow-other-base"]
        added = json.loads(run(*add, "--json", peft / "plain", peft / "patterns", peft / "one-module").stdout)["added"]
        self.assertEqual([entry["name"] for entry in added], ["plain", "patterns", "one-module"])
        report = json.loads(run("library", "show", "--library", library, "--report", "patterns").stdout)["report"]
        ranks = {p["path"]: (p["rank"], p["scaling"]) for p in report["projections"]}
        self.assertEqual(ranks["layers.1.self_attn.o_proj"], (8, 5 / 8))
        self.assertEqual(report["unused"], [])
        # Nothing is added if one of them cannot be.
        self.expect_error([*add, peft / "rslora", peft / "tied-embedding"], 3, "ensure_weight_tying")
        self.expect_error([*add, peft / "rslora", peft / "plain"], 2, "has an adapter 'plain' already")
        self.expect_error([*add, "--name", "x", peft / "rslora", peft / "bf16"], 2, "--name is of one adapter, not of 2")
        names = json.loads(run("library", "ls", "--library", library, "--json").stdout)["adapters"]
        self.assertEqual(sorted(entry["name"] for entry in names), ["one-module", "patterns", "plain"])
        # Adapters of unlike targets: where one has no LoRA it changes nothing.
        requests = self.tmp / "r.jsonl"
        write_jsonl(requests, [{"id": 0, "context": "a", "continuation": " positive"}])
        score = ["score", "--base", TINY, "--input", requests, "--library", library, "--adapters"]
        by = ["--num-clusters", 2, "--similarity", "products", "--sparsity", 0, "--json"]
        folders = [peft / name for name in ("one-module", "patterns", "plain")]
        grouped = json.loads(run("cluster", "--library", library, *by).stdout)
        self.assertEqual(json.loads(run("cluster", *folders, *by).stdout), grouped)
        sweep = ["--sweep", 2, *by[2:]]
        self.assertEqual(json.loads(run("cluster", "--library", library, *sweep).stdout), json.loads(run("cluster", *folders, *sweep).stdout))
        run(*add, "--name", "again", "--assign", "--tasks", "more", peft / "one-module")
        groups = json.loads(run("library", "ls", "--library", library, "--json").stdout)["groups"]
        self.assertEqual([group for group, tasks in groups.items() if "more" in tasks],
                         [group for group, tasks in groups.items() if "one-module" in tasks])
        run(*score, "plain,one-module", "--method", "arrow", "--combine", "outputs")
        run(*score, "plain,one-module", "--method", "mean-products")
        run("library", "add", "--library", library, "--base", TINY, "--allow-other-base", peft / "head", peft / "tokens", peft / "lora-bias")
        self.expect_error([*score, "plain,head", "--method", "arrow", "--combine", "outputs"], 3, "adapter 'head' adapts 'lm_head': it cannot be routed")
        self.expect_error([*score, "plain,tokens", "--method", "arrow"], 3, "adapter 'tokens' holds rows of single tokens", "oracle=NAME")
        self.expect_error([*score, "plain,lora-bias", "--method", "arrow"], 3, "adapter 'lora-bias' has biases of its own, lora_bias")

    def test_clusters_given_folders(self):
        folders = [ROOT / f"tests/golden/arrow/adapter-{i}" for i in range(6)]
        result = json.loads(run("cluster", "--num-clusters", 3, "--json", *folders).stdout)
        shuffled = json.loads(run("cluster", "--num-clusters", 3, "--json", *reversed(folders)).stdout)
        self.assertEqual(result["clusters"], shuffled["clusters"])
        self.assertEqual(sorted(sum(result["clusters"], [])), [f"adapter-{i}" for i in range(6)])
        sweep = json.loads(run("cluster", "--json", *folders, "--sweep").stdout)
        self.assertEqual([entry["num_clusters"] for entry in sweep["sweep"]], [1, 2, 3, 4, 5, 6])
        self.assertIsNone(sweep["sweep"][0]["silhouette"])
        for key in ("labels", "inertia", "silhouette"):
            with self.subTest(key):
                self.assertEqual(sweep["sweep"][2][key], result[key])
        self.assertEqual(sweep["similarity"], result["similarity"])
        best = max(sweep["sweep"][1:], key=lambda entry: (entry["silhouette"], -entry["num_clusters"]))
        self.assertEqual(sweep["suggested"], best["num_clusters"])
        table = run("cluster", *folders, "--sweep", "5,2").stdout.splitlines()
        self.assertEqual([line.split()[0] for line in table], ["K", "2", "5"])
        self.assertEqual(sum("suggested" in line for line in table), 1)
        self.expect_error(["cluster", *folders, "--sweep", "2,x"], 2, "--sweep '2,x'", "2,5,10")
        self.expect_error(["cluster", *folders, "--sweep", "7"], 2, "6 adapters cannot form 7 clusters")
        self.expect_error(["cluster", *folders, "--num-clusters", 2, "--sweep"], 2, "--sweep")

    def test_only_the_group_that_a_new_adapter_joined_is_trained_again(self):
        data = make_tasks(self.tmp / "train")
        library = self.tmp / "library"
        train = self.train_args(library, data)
        run(*train, "--tasks", "alpha,beta,gamma")
        run("cluster", "--library", library, "--num-clusters", 2)
        build = ["build", "--recipe", "clusters", *train[1:], "--json"]
        first = json.loads(run(*build).stdout)
        self.assertEqual([a["name"] for a in first["adapters"] if a["is_new"]], ["cluster-c0", "cluster-c1"])
        exported = self.tmp / "exported"
        run("library", "export", "--library", library, "alpha", exported)
        add = ["library", "add", "--library", library, "--base", TINY, "--assign", "--name", "delta", "--json", exported]
        group = json.loads(run(*add).stdout)["assigned"]["group"]
        self.expect_error(build, 3, "--force")
        again = json.loads(run(*build, "--force").stdout)
        self.assertEqual([a["name"] for a in again["adapters"] if a["is_new"]], [f"cluster-{group}"])

    def test_a_new_adapter_joins_the_nearest_group(self):
        data = make_tasks(self.tmp / "train")
        library = self.tmp / "library"
        run(*self.train_args(library, data))
        add = ["library", "add", "--library", library, "--base", TINY, "--assign"]
        exported = self.tmp / "exported"
        run("library", "export", "--library", library, "beta", exported)
        self.expect_error([*add, "--name", "new", exported], 2, "has no groups to join", "quiver cluster")
        run("cluster", "--library", library, "--sweep")
        self.assertEqual(json.loads(run("library", "ls", "--library", library, "--json").stdout)["groups"], {})
        run("cluster", "--library", library, "--num-clusters", 4)
        groups = json.loads(run("library", "ls", "--library", library, "--json").stdout)["groups"]
        group = next(name for name, tasks in groups.items() if tasks == ["beta"])
        self.expect_error([*add, "--name", "new", "--tasks", "alpha", exported], 2, "task 'alpha' is in group")
        entry = json.loads(run(*add, "--name", "new", "--tasks", "one,two", "--json", exported).stdout)
        self.assertEqual(entry["assigned"]["group"], group)
        self.assertAlmostEqual(entry["assigned"]["similarities"][group]["mean"], 1, places=6)
        self.assertEqual(len(entry["assigned"]["similarities"]), 4)
        groups[group] = ["beta", "one", "two"]
        self.assertEqual(json.loads(run("library", "ls", "--library", library, "--json").stdout)["groups"], groups)
        text = run(*add, "--name", "newer", exported).stdout
        self.assertRegex(text, rf"{group} +mean cosine 1.000 with 2 adapters, joined")
        self.assertEqual(run("library", "verify", "--library", library).stdout.strip(), "all is well")


class BadInput(Case):
    def test_base_models(self):
        self.expect_error(["score", "--base", self.tmp / "nothing"], 3, "nothing", "does not exist")
        broken = self.tmp / "model"
        shutil.copytree(TINY, broken)
        weights = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        self.expect_error(["generate", "--prompt", "x", "--base", broken], 3, "model.safetensors")
        (broken / "model.safetensors").unlink()
        self.expect_error(["generate", "--prompt", "x", "--base", broken], 3, "model.safetensors")
        gguf = self.tmp / "broken.gguf"
        gguf.write_bytes((ROOT / "tests/golden/model/llama-mixed.gguf").read_bytes()[:5000])
        self.expect_error(["generate", "--prompt", "x", "--base", gguf], 3, "broken.gguf")

    def test_requests(self):
        bad = self.tmp / "bad.jsonl"
        bad.write_text('{"id":1,"context":"a","continuation":" b"}\n{"id":2,"context":"a"\n')
        self.expect_error(["score", "--base", TINY, "--input", bad, "--output", self.tmp / "out"], 3, "bad.jsonl:2")
        self.assertFalse((self.tmp / "out").exists())
        write_jsonl(bad, [{"id": 1, "context": "word " * 3000, "continuation": " b"}])
        self.expect_error(["score", "--base", TINY, "--input", bad], 2, "bad.jsonl:1", "context")
        write_jsonl(bad, [{"id": 1, "context": "a", "continuation": ""}])
        self.expect_error(["score", "--base", TINY, "--input", bad], 2, "bad.jsonl:1", "empty")

    def test_tasks(self):
        data = make_tasks(self.tmp / "train", names=("alpha",))
        (data / "void.jsonl").write_text("\n")
        args = ["--data", data, "--base", TINY, "--library", self.tmp / "library"]
        self.expect_error(["train", *args, "--tasks", "alpa"], 3, "did you mean 'alpha'")
        self.expect_error(["train", *args, "--tasks", "void"], 3, "is empty")
        self.expect_error(["train", *args, "--tasks", "alpha,alpha"], 2, "twice")
        self.expect_error(["train", *args, "--tasks", "alpha", "--lr", "1e30"], 2, "lower the learning rate")
        self.assertNotIn("alpha", run("library", "ls", "--library", self.tmp / "library").stdout)
        kept = self.tmp / "library/checkpoints/alpha.safetensors"
        self.expect_error(["train", *args, "--tasks", "alpha", "--lr", "1e30"], 2, str(kept))
        self.assertTrue(kept.exists())
        self.expect_error(["train", *args, "--tasks", "alpha", "--schedule", "step"], 2, "--schedule 'step' is not one of linear, cosine, constant")
        self.expect_error(["train", *args, "--tasks", "alpha", "--share-prefixes", "maybe"], 2, "--share-prefixes 'maybe' is not one of auto, on, off")
        self.expect_error(["train", *args, "--tasks", "alpha", "--patience", 2], 2, "--patience 2", "--validate ROWS")
        self.expect_error(["train", *args, "--tasks", "alpha", "--micro-batch-tokens", 5], 2, "a piece of a batch at most 5", "--max-length")

    def test_memory_is_no_setting(self):
        data = make_tasks(self.tmp / "train", names=("alpha",))
        library = self.tmp / "library"
        run(*self.train_args(library, data))
        again = json.loads(run(*self.train_args(library, data, "--checkpoint-activations", "--json")).stdout.splitlines()[-1])
        self.assertFalse(again["adapters"][0]["is_new"])

    def test_other_settings_are_not_overwritten(self):
        data = make_tasks(self.tmp / "train", names=("alpha",))
        library = self.tmp / "library"
        run(*self.train_args(library, data))
        before = (library / "adapters/alpha/adapter_model.safetensors").read_bytes()
        self.expect_error(self.train_args(library, data, "--rank", 2), 3, "alpha", "--force")
        self.assertEqual(before, (library / "adapters/alpha/adapter_model.safetensors").read_bytes())
        run(*self.train_args(library, data, "--rank", 2, "--force"))
        self.assertNotEqual(before, (library / "adapters/alpha/adapter_model.safetensors").read_bytes())

    def test_adapters(self):
        data = make_tasks(self.tmp / "train", names=("alpha", "beta"))
        library = self.tmp / "library"
        run(*self.train_args(library, data))
        requests = self.tmp / "r.jsonl"
        write_jsonl(requests, [{"id": 1, "context": "a", "continuation": " b"}])
        score = ["score", "--base", TINY, "--input", requests, "--library", library]
        self.expect_error([*score, "--method", "oracle=alfa"], 3, "did you mean 'alpha'")
        self.expect_error([*score, "--top-k", 3], 2, "3", "2 adapters")
        self.expect_error([*score, "--method", "magic"], 2, "no method 'magic'", "quiver methods")
        self.expect_error(["score", "--base", ROOT / "tests/golden/model/llama-sharded", "--input", requests, "--adapter", library / "adapters/alpha"], 3, "alpha")
        self.expect_error(["library", "add", "--library", library, "--base", TINY, ROOT / "tests/golden/peft/tied-embedding"], 3, "ensure_weight_tying")
        run(*self.train_args(library, data, "--tasks", "alpha", "--shared", "turned", "--dora"))
        self.expect_error([*score, "--adapters", "alpha,turned"], 3, "adapter 'turned' is a DoRA", "oracle=NAME")
        run(*score, "--method", "oracle=turned")
        self.expect_error(["library", "remove", "--library", library, "nobody"], 3, "nobody")
        self.expect_error(["library", "ls", "--library", self.tmp], 3, "quiver.json")

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("mount"), "needs root to make a small file system")
    def test_full_disk(self):
        small = self.tmp / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True).returncode != 0:
            self.skipTest("cannot mount a tmpfs here")
        self.addCleanup(subprocess.run, ["umount", str(small)], capture_output=True)
        data = make_tasks(self.tmp / "train", names=("alpha",))
        self.expect_error(self.train_args(small / "library", data, "--rank", 64), 4, "No space left")
        self.assertEqual([p for p in (small / "library/adapters").glob("*") if not p.name.startswith(".")], [])

    def test_usage(self):
        self.expect_error(["trian"], 2, "did you mean 'train'")
        self.expect_error(["score", "--bsae", "x"], 2, "--base")
        self.expect_error(["train", "--library", "x", "--epochs", "0"], 2, "epochs")
        self.expect_error(["score", "--device", "tpu", "--base", TINY], 2, "auto, cpu, cuda")

    def test_a_closed_pipe_is_an_error_not_a_crash(self):
        done = subprocess.run(f"{QUIVER} tokenize --base {TINY} < /usr/share/dict/words 2>&1 >/dev/full" if pathlib.Path("/usr/share/dict/words").exists()
                              else f"yes text | head -n 100000 | {QUIVER} tokenize --base {TINY} 2>&1 >/dev/full", shell=True, capture_output=True, text=True)
        self.assertIn("cannot write to standard output", done.stdout)
        done = subprocess.run(f"echo text | {QUIVER} tokenize --base {TINY} 2>&1 >&-", shell=True, capture_output=True, text=True)
        self.assertIn("cannot write to standard output", done.stdout)

    def test_what_is_printed_to_a_closed_stream_ends_in_no_file(self):
        with tempfile.TemporaryDirectory() as folder:
            requests, whole, closed = (pathlib.Path(folder) / name for name in ("requests.jsonl", "whole.jsonl", "closed.jsonl"))
            requests.write_text("".join(json.dumps({"id": i, "context": "a", "continuation": i}) + "\n" for i in "bc"))
            for output, streams in ((whole, ""), (closed, "<&- >&- 2>&-")):
                subprocess.run(f"{QUIVER} score --base {TINY} --no-chat --input {requests} --output {output} {streams}", shell=True, capture_output=True)
            self.assertEqual(len(whole.read_text().splitlines()), 2)
            self.assertEqual(closed.read_bytes(), whole.read_bytes())


if __name__ == "__main__":
    main()
