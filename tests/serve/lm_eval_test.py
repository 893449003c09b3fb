#!/usr/bin/env python3
"""lm-eval, unchanged, against `quiver serve`: what it finds is what `quiver eval`, `quiver score` and `quiver generate` find.

Tasks are local files. Every access to a hub fails. LM_EVAL_LONG=1 takes the real base model and more rows (make check-lm-eval).
"""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

# Before lm-eval's packages are imported: no network, no progress bars.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_UPDATE_DOWNLOAD_COUNTS="0", HF_ENDPOINT="http://127.0.0.1:9", TQDM_DISABLE="1",
                  HF_DATASETS_DISABLE_PROGRESS_BARS="1", LMEVAL_LOG_LEVEL="ERROR", no_proxy="127.0.0.1")

from serve_support import (DEFAULT_BASE, ROOT, Case, Server, generate, in_clients_environment, main, make_tasks, needs_module, run, score, train_library,
                           write_chat_base, write_jsonl)

IS_LONG = bool(os.environ.get("LM_EVAL_LONG"))
SETS = ("arc_easy", "piqa", "openbookqa", "hellaswag", "winogrande") + (("boolq", "arc_challenge") if IS_LONG else ())
ROWS = 24 if IS_LONG else 5
MODELS = ("base", "alpha", "arrow", "lag")
GRID = [(1, 1), (1, 8), (32, 1), (32, 8)]  # num_concurrent and batch_size
TOLERANCE = 1e-4

CHOICE_TASK = """
task: quiver_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: {text}
doc_to_choice: {choices}
doc_to_target: {target}
metric_list: [{{metric: acc}}]
"""
TEXT_TASK = """
task: quiver_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
{more}
"""


def setUpModule():
    global FOLDER, BASE, LIBRARY, SERVER
    FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="quiver-lm-eval-"))
    os.environ["HF_HOME"] = str(FOLDER / "hub")
    data = make_tasks(FOLDER / "tasks", ("alpha", "beta", "gamma", "delta"))
    if IS_LONG:
        BASE = DEFAULT_BASE
    else:
        BASE = write_chat_base(FOLDER / "base")
        template = (BASE / "chat_template.jinja").read_text()
        (BASE / "chat_template.jinja").write_text(re.sub(r" *{%- (end)?generation %}\n", "", template).rstrip())  # what lm-eval reads otherwise than transformers
        config = json.loads((BASE / "config.json").read_text())
        (BASE / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    LIBRARY = train_library(FOLDER / "library", data, base=BASE)
    SERVER = Server("--library", LIBRARY, "--dtype", "float32", base=BASE)
    write_tasks()


def tearDownModule():
    SERVER.stop()
    shutil.rmtree(FOLDER, ignore_errors=True)


def write_tasks():
    """Local tasks of lm-eval, and the same rows as `quiver eval` reads them."""
    (FOLDER / "yaml").mkdir()
    (FOLDER / "data/heldout_mc").mkdir(parents=True)
    for name in SETS:
        raw = subprocess.run(["zstd", "-dc", ROOT / f"data/heldout_mc/{name}.jsonl.zst"], capture_output=True, check=True).stdout
        rows = [json.loads(line) for line in raw.splitlines()]
        rows = [row for row in rows if len(row["context"]) < (10000 if IS_LONG else 400)][:ROWS]
        file = FOLDER / f"data/heldout_mc/{name}.jsonl"
        write_jsonl(file, rows)
        form = dict(text="context", choices="choices", target="label")
        if rows[0]["mode"] == "partial":  # contexts differ, and lm-eval takes the right one's number for the text
            form = dict(text="label", choices='"{{[context + choices[0], context + choices[1]]}}"', target="continuation")
        (FOLDER / f"yaml/{name}.yaml").write_text(CHOICE_TASK.format(name=name, file=file, **form))
    texts = [{"text": row} for row in ("The review was read twice.", "A naïve café, 猫 and more text.", "archer " * 30)]
    write_jsonl(FOLDER / "texts.jsonl", texts)
    metrics = "metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]"
    (FOLDER / "yaml/rolling.yaml").write_text(
        TEXT_TASK.format(name="rolling", file=FOLDER / "texts.jsonl", kind="loglikelihood_rolling", text="", target="{{text}}", more=metrics))
    prompts = [{"text": text} for text in ("Task alpha. Say", "read twice", "Is it an answer?", "negative review")]
    write_jsonl(FOLDER / "prompts.jsonl", prompts)
    for name, until in (("generation", "[zqx]"), ("stopped", "[a, e]")):
        more = f"generation_kwargs: {{until: {until}, max_gen_toks: 12, do_sample: false}}\nmetric_list: [{{metric: exact_match}}]"
        (FOLDER / f"yaml/{name}.yaml").write_text(
            TEXT_TASK.format(name=name, file=FOLDER / "prompts.jsonl", kind="generate_until", text="{{text}}", target="x", more=more))


def choice_of(model):
    """Arguments of the program that choose what the server calls `model`."""
    if model == "base":
        return ()
    return ("--adapter", LIBRARY / "adapters" / model) if model == "alpha" else ("--library", LIBRARY, "--method", model)


def model_args(model, endpoint="completions", **more):
    return {"model": model, "base_url": f"{SERVER.url}/v1/{endpoint}", "max_length": 2048, "max_retries": 1, **more}


def evaluate(model, tasks, kind="local-completions", num_concurrent=1, batch_size=1, **more):
    """Samples by task: what lm-eval asked and got; and its results."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    endpoint = "completions" if kind == "local-completions" else "chat/completions"
    args = model_args(model, endpoint, num_concurrent=num_concurrent)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        found = lm_eval.simple_evaluate(model=kind, model_args=args, tasks=[f"quiver_{task}" for task in tasks], batch_size=batch_size, bootstrap_iters=0,
                                        task_manager=TaskManager(include_path=str(FOLDER / "yaml"), include_defaults=False), **more)
    return {task: sorted(found["samples"][f"quiver_{task}"], key=lambda sample: sample["doc_id"]) for task in tasks}, found["results"]


@needs_module("lm_eval")
class Choices(Case):
    def expected(self, model):
        """Log-likelihoods of `quiver score` by set, row and choice; accuracies of `quiver eval`."""
        rows, places = [], []
        for name in SETS:
            for i, line in enumerate((FOLDER / f"data/heldout_mc/{name}.jsonl").read_text().splitlines()):
                row = json.loads(line)
                for c, choice in enumerate(row["choices"]):
                    is_partial = row["mode"] == "partial"
                    rows.append({"context": row["context"] + (choice if is_partial else ""), "continuation": " " + (row["continuation"] if is_partial else choice)})
                    places.append((name, i, c))
        numbers = dict(zip(places, (answer["logprob"] for answer in score(rows, *choice_of(model), base=BASE, tmp=self.tmp)), strict=True))
        base = [] if BASE is DEFAULT_BASE else ["--base", BASE]
        methods = "base" if model == "base" else "given"
        results = json.loads(run("eval", *base, "--dtype", "float32", "--no-chat", "--data", FOLDER / "data", "--tasks", ",".join(SETS), "--methods", methods,
                                 *choice_of(model), "--json", "--output", self.tmp / f"{model}.json").stdout)
        return numbers, {row["task"]: row["mean"] for row in results["per_task"] if row["metric"] == "acc"}

    def compare(self, model, settings):
        numbers, accuracies = self.expected(model)
        correct = {}
        for num_concurrent, batch_size in settings:
            with self.subTest(model=model, num_concurrent=num_concurrent, batch_size=batch_size):
                samples, found = evaluate(model, SETS, num_concurrent=num_concurrent, batch_size=batch_size)
                for name in SETS:
                    for i, sample in enumerate(samples[name]):
                        for c, ((log_likelihood, _),) in enumerate(sample["resps"]):
                            self.assertAlmostEqual(log_likelihood, numbers[name, i, c], delta=TOLERANCE, msg=(name, i, c))
                    correct[name] = found[f"quiver_{name}"]["acc,none"]
                self.assertEqual(correct, accuracies)

    def test_the_base(self):
        self.compare("base", GRID)

    def test_an_adapter(self):
        self.compare("alpha", GRID)

    def test_arrow(self):
        self.compare("arrow", GRID)

    def test_lag(self):
        self.compare("lag", GRID)


@needs_module("lm_eval")
class Texts(Case):
    def test_rolling_log_likelihood(self):
        for model in ("base", "arrow"):
            samples, found = evaluate(model, ["rolling"])
            texts = [sample["doc"]["text"] for sample in samples["rolling"]]
            expected = [answer["logprob"] for answer in score([{"context": "", "continuation": text} for text in texts], *choice_of(model), base=BASE, tmp=self.tmp)]
            for sample, number in zip(samples["rolling"], expected, strict=True):
                self.assertAlmostEqual(sample["resps"][0][0], number, delta=TOLERANCE)
            words = sum(len(re.split(r"\s+", text)) for text in texts)
            self.assertAlmostEqual(found["quiver_rolling"]["word_perplexity,none"] / math.exp(-sum(expected) / words), 1, delta=TOLERANCE)

    def test_generations(self):
        for model in MODELS:
            samples, _ = evaluate(model, ["generation", "stopped"], num_concurrent=4)
            for whole, stopped in zip(samples["generation"], samples["stopped"], strict=True):
                expected = generate(whole["doc"]["text"], 12, *choice_of(model), base=BASE)["text"]
                self.assertEqual(whole["resps"][0][0], expected)
                ends = [expected.index(stop) for stop in ("a", "e") if stop in expected]
                self.assertEqual(stopped["resps"][0][0], expected[:min(ends)] if ends else expected)

    def test_generations_of_chats(self):
        for model in ("base", "alpha"):
            samples, _ = evaluate(model, ["generation"], kind="local-chat-completions", num_concurrent=4, apply_chat_template=True)
            for sample in samples["generation"]:
                base = [] if BASE is DEFAULT_BASE else ["--base", BASE]
                done = run("generate", *base, "--dtype", "float32", "--chat", "--prompt", sample["doc"]["text"], "--max-new-tokens", 12, "--json",
                           *choice_of(model), env={"OMP_NUM_THREADS": "1"})
                self.assertEqual(sample["resps"][0][0], json.loads(done.stdout)["text"])

    def test_the_template_is_rendered_as_the_server_renders_it(self):
        from lm_eval.utils import RemoteTokenizer
        tokenizer = RemoteTokenizer(SERVER.url + "/v1/completions")
        talk = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is."}, {"role": "user", "content": "Is é 猫?"}]
        for messages in (talk, talk[:1], [{"role": "system", "content": "Be long"}, *talk]):
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
            self.assertEqual(tokenizer.encode(text), SERVER.post("/tokenize", {"messages": messages})[1]["tokens"])


@needs_module("lm_eval")
class EndOfText(Case):
    def test_the_token_after_a_continuation_may_be_the_end(self):
        """lm-eval leaves out the last entry of the lists. An end of text that were missing there would cost the continuation's last token."""
        from lm_eval.models.openai_completions import LocalCompletionsAPI
        found = 0
        for prompt in ("Task alpha. Say", "Task alpha. Say alpha.", "read", "text", "archer twice", "review"):
            context = SERVER.post("/tokenize", {"prompt": prompt, "add_special_tokens": False})[1]["tokens"]
            answer = SERVER.complete("alpha", prompt, 24, return_token_ids=True)["choices"][0]
            if answer["finish_reason"] != "stop" or len(answer["token_ids"]) < 2:
                continue
            found += 1
            continuation = answer["token_ids"][:-1]
            lm = LocalCompletionsAPI(**model_args("alpha"))
            (log_likelihood, is_greedy), = lm._loglikelihood_tokens([(("", ""), context, continuation)])
            self.assertTrue(is_greedy)
            body = {"model": "alpha", "prompt": context + continuation, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
            raw = SERVER.post("/v1/completions", body)[1]["choices"][0]
            self.assertEqual(raw["finish_reason"], "stop")
            numbers = raw["logprobs"]["token_logprobs"]
            self.assertEqual(len(numbers), len(context) + len(continuation) + 1)
            self.assertAlmostEqual(log_likelihood, sum(numbers[len(context):-1]), delta=TOLERANCE)  # rows that are cached are not computed again
            longer = SERVER.post("/v1/completions", body | {"prompt": context + answer["token_ids"], "max_tokens": 0})[1]["choices"][0]["logprobs"]
            for a, b in zip(numbers[1:], longer["token_logprobs"][1:], strict=True):
                self.assertAlmostEqual(a, b, delta=TOLERANCE)
        self.assertGreater(found, 0)


if __name__ == "__main__":
    in_clients_environment()
    main()
