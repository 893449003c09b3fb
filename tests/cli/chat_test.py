#!/usr/bin/env python3
"""Conversations in the program: templates, formats and what is recorded of them, multi-turn rows, `quiver chat`, bad input."""

import json
import os
import pathlib
import pty
import select
import shutil
import signal
import subprocess
import time
import unittest

from test_support import QUIVER, ROOT, TINY, Case, main, make_tasks, run, write_jsonl

GOLDEN = ROOT / "tests/golden/chat"


def message(role, content):
    return {"role": role, "content": content}


class ChatCase(Case):
    def setUp(self):
        super().setUp()
        self.base = self.tmp / "base"  # the tiny model with a chat template
        shutil.copytree(TINY, self.base)
        shutil.copy(GOLDEN / "chat_template.jinja", self.base)

    def train(self, library, data, *more, check=0):
        return run("train", "--base", self.base, "--data", data, "--library", library, "--dtype", "float32", "--batch-size", 4, "--lr", "1e-2",
                   "--epochs", 1, *more, check=check)


class Tokenize(ChatCase):
    def test_text_and_ids_are_those_of_transformers(self):
        cases = json.loads((GOLDEN / "cases.json").read_text())["cases"]
        lines = "".join(json.dumps(case["messages"]) + "\n" for case in cases)
        found = [json.loads(line) for line in run("tokenize", "--base", self.base, "--messages", stdin=lines).stdout.splitlines()]
        self.assertEqual([f["ids"] for f in found], [case["ids"] for case in cases])
        self.assertEqual([f["text"] for f in found], [case["text"] for case in cases])
        lines = "".join(json.dumps({"messages": case["messages"][:-1]}) + "\n" for case in cases)
        found = run("tokenize", "--base", self.base, "--messages", "--add-generation-prompt", stdin=lines).stdout.splitlines()
        self.assertEqual([json.loads(line)["ids"] for line in found], [case["prompt_ids"] for case in cases])

    def test_bad_messages(self):
        def fails(line, *telling, code=3):
            self.expect_error(["tokenize", "--base", self.base, "--messages"], code, "standard input:1", *telling, stdin=line + "\n")
        fails("{", "unexpected")
        fails("[]", "empty")
        fails('[{"role":"user"}]', "messages[0]", "content")
        fails('[{"role":"user","content":"a","tool_calls":[{}]}]', "tool_calls")
        (self.base / "chat_template.jinja").write_text("{{ raise_exception('say it with flowers') }}")
        fails('[{"role":"user","content":"a"}]', "say it with flowers", "chat_template.jinja", code=2)
        self.expect_error(["tokenize", "--base", TINY, "--messages"], 2, "no chat template", stdin="[]\n")
        self.expect_error(["tokenize", "--base", self.base, "--add-generation-prompt"], 2, "--messages", stdin="")


class Formats(ChatCase):
    def test_the_template_is_used_by_default_and_no_chat_is_bare_text(self):
        requests = self.tmp / "requests.jsonl"
        rendered = "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
        write_jsonl(requests, [{"context": "Is it?", "continuation": "yes"}])
        write_jsonl(self.tmp / "rendered.jsonl", [{"context": rendered[:-1], "continuation": "\nyes"}])
        write_jsonl(self.tmp / "messages.jsonl", [{"messages": [message("user", "Is it?")], "continuation": "yes"}])

        def score(file, *more):
            return json.loads(run("score", "--base", self.base, "--dtype", "float32", "--input", self.tmp / file, *more).stdout)

        chat, bare = score("requests.jsonl"), score("requests.jsonl", "--no-chat")
        self.assertEqual(chat, score("requests.jsonl", "--chat"))
        self.assertEqual(chat, score("messages.jsonl"))
        self.assertNotEqual(chat["logprob"], bare["logprob"])
        by_hand = score("rendered.jsonl", "--no-chat")["token_logprobs"][1:]  # the first is of the line break
        for a, b in zip(chat["token_logprobs"], by_hand, strict=True):
            self.assertAlmostEqual(a, b, places=5)
        self.assertNotEqual(chat["logprob"], score("requests.jsonl", "--system", "Be long")["logprob"])
        answer = json.loads(run("generate", "--base", self.base, "--prompt", "Is it?", "--max-new-tokens", 4, "--json").stdout)
        write_jsonl(self.tmp / "prompts.jsonl", [{"messages": [message("user", "Is it?")]}, {"prompt": "Is it?"}])
        lines = run("generate", "--base", self.base, "--input", self.tmp / "prompts.jsonl", "--max-new-tokens", 4).stdout.splitlines()
        for line in lines:
            self.assertEqual(json.loads(line)["ids"], answer["ids"])

    def test_what_is_recorded_and_what_is_warned_of(self):
        data = make_tasks(self.tmp / "train", names=("alpha",))
        library = self.tmp / "library"
        total = json.loads(self.train(library, data, "--json").stdout)["total"]
        self.assertLess(total["rows"], 0.6 * total["tokens"])  # the template's head and the instruction are computed once a batch
        entry = json.loads((library / "quiver.json").read_text())["adapters"]["alpha"]
        self.assertTrue(entry["training"]["settings"]["format"].startswith("chat template "))
        self.assertIn("chat template ", (library / "adapters/alpha/README.md").read_text())
        score = ["score", "--base", self.base, "--dtype", "float32"]
        request = json.dumps({"context": "a", "continuation": "b"}) + "\n"
        fits = run(*score, "--library", library, "--method", "mean", stdin=request)
        self.assertNotIn("warning", fits.stderr)
        for choice in (["--library", library, "--method", "mean"], ["--adapter", library / "adapters/alpha"]):
            with self.subTest(choice):
                other = run(*score, *choice, "--no-chat", stdin=request)
                self.assertIn("'alpha' was trained on chat template", other.stderr.replace("'mean'", "'alpha'"))
                self.assertIn("given as bare text", other.stderr)
        bare = self.tmp / "bare"
        self.train(bare, data, "--no-chat")
        self.assertNotIn("format", json.loads((bare / "quiver.json").read_text())["adapters"]["alpha"]["training"]["settings"])
        self.assertIn("was trained on bare text; prompts are given as chat template",
                      run(*score, "--library", bare, "--method", "lag", stdin=request).stderr)
        # The other format is another training.
        self.assertIn("other settings", self.train(library, data, "--no-chat", check=3).stderr)

    def test_conversations_are_trained_on_all_answers_or_the_last(self):
        data = self.tmp / "train"
        data.mkdir()
        turns = [message("user", "read"), message("assistant", "positive review"), message("user", "twice"), message("assistant", "text")]
        write_jsonl(data / "talk.jsonl", [{"id": str(i), "messages": turns, "split": split} for i, split in enumerate(["train"] * 8 + ["test"] * 2)])

        def loss(name, *more):
            self.train(self.tmp / name, data, "--loss-mean", "tokens", *more)
            return json.loads((self.tmp / name / "quiver.json").read_text())["adapters"]["talk"]["training"]

        whole, last = loss("all"), loss("last", "--train-on", "last")
        self.assertEqual(last["settings"]["train_on"], "last")
        self.assertNotEqual(whole["first_loss"], last["first_loss"])
        # The loss of all answers is the mean over the tokens of both, as score has them.
        rows = [{"messages": turns[:1], "continuation": "positive review<|im_end|>"}, {"messages": turns[:3], "continuation": "text<|im_end|>"}]
        write_jsonl(self.tmp / "rows.jsonl", rows)
        scores = [json.loads(line) for line in run("score", "--base", self.base, "--dtype", "float32", "--input", self.tmp / "rows.jsonl").stdout.splitlines()]
        self.assertAlmostEqual(last["first_loss"], -scores[1]["logprob"] / scores[1]["num_tokens"], places=4)
        total = sum(s["num_tokens"] for s in scores)
        self.assertAlmostEqual(whole["first_loss"], -sum(s["logprob"] for s in scores) / total, places=4)
        (self.tmp / "data").mkdir()
        shutil.copytree(data, self.tmp / "data/train")
        results = self.tmp / "results.json"
        run("eval", "--base", self.base, "--library", self.tmp / "all", "--methods", "base,private-mean", "--data", self.tmp / "data", "--tasks", "talk",
            "--max-new-tokens", 3, "--dtype", "float32", "--output", results)
        parsed = json.loads(results.read_text())
        self.assertTrue(parsed["settings"]["evaluation"]["prompt format"].startswith("chat template"))
        base = next(s for s in parsed["samples"] if s["method"] == "base")
        self.assertAlmostEqual(base["nll"], last["first_loss"], places=4)
        self.expect_error(["train", "--base", TINY, "--data", data, "--library", self.tmp / "no"], 2, "talk.jsonl:1", "chat template")
        self.expect_error(["train", "--base", self.base, "--no-chat", "--train-on", "last", "--data", data, "--library", self.tmp / "no"], 2, "--train-on", "--no-chat")

    def test_rows_that_are_no_conversation(self):
        data = self.tmp / "train"
        data.mkdir()

        def fails(row, *telling):
            write_jsonl(data / "talk.jsonl", [{"source": "a", "target": "b"}, row])
            self.expect_error(["train", "--base", self.base, "--data", data, "--library", self.tmp / "library"], 3, "talk.jsonl:2", *telling)

        fails({"messages": []}, "empty")
        fails({"messages": [message("assistant", "a")]}, "messages[0]", "'assistant' at the start")
        fails({"messages": [message("system", "a")]}, "no message of role 'user'")
        fails({"messages": [message("user", "a"), message("user", "b")]}, "messages[1]", "'user' after 'user'")
        fails({"messages": [message("user", "a")]}, "ends with a message of role 'user'")
        fails({"messages": [message("user", "a"), message("assistant", "b")], "target": "b"}, "both 'messages' and 'target'")

    def test_bases_whose_template_cannot_be_used(self):
        prompt = ["generate", "--prompt", "x", "--max-new-tokens", 2]
        self.expect_error([*prompt, "--base", TINY, "--chat"], 2, "no chat template", "tokenizer_config.json")
        self.expect_error([*prompt, "--base", TINY, "--system", "x"], 2, "--system")
        self.expect_error([*prompt, "--base", self.base, "--no-chat", "--system", "x"], 2, "--no-chat")
        self.expect_error([*prompt, "--base", self.base, "--no-chat", "--chat"], 2, "--chat", "--no-chat")
        template = self.base / "chat_template.jinja"
        for text, telling in (("{% for x in y %}", "chat_template.jinja"), ("x" * (1 << 20) + "x", "1048576"), ("{% include 'x' %}", "include")):
            with self.subTest(telling):
                template.write_text(text)
                self.expect_error([*prompt, "--base", self.base], 3, telling, "--no-chat does without it")
        template.write_text("{% for i in range(10000) %}{% for j in range(10000) %}{% for k in range(10000) %}{% endfor %}{% endfor %}{% endfor %}")
        self.expect_error([*prompt, "--base", self.base], 3, "steps")
        run(*prompt, "--base", self.base, "--no-chat")


class Talk(ChatCase):
    def test_a_pipe_of_messages(self):
        data = make_tasks(self.tmp / "train", names=("alpha", "beta"))
        library = self.tmp / "library"
        self.train(library, data)
        chat = ["chat", "--base", self.base, "--library", library, "--dtype", "float32", "--max-new-tokens", 5, "--calibration-prompts", 8]
        lines = run(*chat, "--json", stdin="read twice\nread twice\n/reset\nread twice\n").stdout.splitlines()
        first, second, after_reset = map(json.loads, lines)
        self.assertEqual(first, after_reset)
        self.assertAlmostEqual(sum(a["share"] for a in first["adapters"]), 1, places=4)
        # The second answer has read the first turn.
        turns = [message("user", "read twice"), message("assistant", first["text"]), message("user", "read twice")]
        write_jsonl(self.tmp / "turns.jsonl", [{"messages": turns}])
        expected = json.loads(run("generate", "--base", self.base, "--library", library, "--dtype", "float32", "--max-new-tokens", 5, "--calibration-prompts", 8, "--input",
                                  self.tmp / "turns.jsonl").stdout)
        self.assertEqual(second["text"], expected["text"])
        text = run(*chat, stdin="/trace\nread\n/trace\n/method\n/method mean\nread\n/trace\n/help\n/quit\nread\n").stdout
        self.assertIn("no answer yet\n", text)
        self.assertIn(" %  alpha\n", text)
        self.assertIn("\n 100.0 %  mean\n", text)
        self.assertIn("/reset        forget the conversation", text)
        shutil.copytree(library / "adapters/alpha", self.tmp / "huge")
        config = json.loads((self.tmp / "huge/adapter_config.json").read_text())
        (self.tmp / "huge/adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1e38}))
        self.expect_error(["chat", "--base", self.base, "--dtype", "float32", "--max-new-tokens", 5, "--adapter", self.tmp / "huge"], 3, "after the message are not finite", "/huge'", stdin="x\n")

    def test_what_goes_wrong(self):
        chat = ["chat", "--base", self.base, "--max-new-tokens", 5]
        self.assertIn("no command '/metod'", run(*chat, stdin="/metod\n").stderr)
        self.expect_error(chat, 2, "--library", stdin="/method mean\n")
        self.expect_error(["chat", "--base", TINY], 2, "no chat template", stdin="x\n")
        self.expect_error([*chat, "--no-chat"], 2, "conversation needs the chat template", stdin="x\n")
        self.expect_error(chat, 2, "the message takes", "context", stdin="read " * 600 + "\n")
        long = run(*chat, "--json", stdin="".join("read " * 40 + "\n" for _ in range(4)))
        self.assertGreater(json.loads(long.stdout.splitlines()[-1])["forgotten"], 0)
        self.assertIn("were forgotten", long.stderr)

    def test_ctrl_c_at_the_prompt_ends_the_program(self):
        parent, child = pty.openpty()
        process = subprocess.Popen([QUIVER, "chat", "--base", self.base, "--max-new-tokens", "180", "--threads", "1"], stdin=child, stdout=child, stderr=child,
                                   start_new_session=True, cwd=ROOT)
        os.close(child)
        self.addCleanup(process.kill)

        unread = ""

        def read_until(text, seconds=60):
            nonlocal unread
            end = time.monotonic() + seconds
            while text not in unread:
                self.assertLess(time.monotonic(), end, unread)
                if select.select([parent], [], [], 0.2)[0]:
                    unread += os.read(parent, 4096).decode(errors="replace")
            unread = unread.partition(text)[2]

        read_until("> ")
        os.write(parent, b"/trace\n")
        read_until("no answer yet")
        read_until("> ")
        os.write(parent, b"read\n/trace\n")  # the answer of a random model may hold anything, a prompt too
        read_until("100.0 %  base")
        read_until("> ")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(30), -signal.SIGINT)
        os.close(parent)


if __name__ == "__main__":
    main()
