#!/usr/bin/env python3
"""`quiver serve` as its clients meet it: OpenAI's for Python and for JavaScript, and curl."""

import asyncio
import json
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest

from serve_support import (NODE_MODULES, WAIT, Case, Server, generate, in_clients_environment, main, make_tasks, needs_module, needs_program,
                           train_library, wait_until, write_chat_base)

PROMPTS = ["Task alpha. Say", "Task beta. Say", "read twice", "archer", "é and 猫", "negative review text answer"]


def setUpModule():
    """A tiny base with a chat template, a base of a long context, and a library."""
    global FOLDER, BASE, LONG, LIBRARY
    FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="quiver-serve-"))
    BASE, LONG = write_chat_base(FOLDER / "base"), write_chat_base(FOLDER / "long")
    config = json.loads((LONG / "config.json").read_text())
    (LONG / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32768}))
    LIBRARY = train_library(FOLDER / "library", make_tasks(FOLDER / "data", ("alpha", "beta", "gamma", "delta")))


def tearDownModule():
    shutil.rmtree(FOLDER, ignore_errors=True)


def serve(*args, base=None, **more):
    return Server("--dtype", "float32", *args, base=base or BASE, **more)


class PythonClient:
    """OpenAI's client for Python, with the answers of openai_client.mjs."""

    def __init__(self, url, key="none", max_retries=0):
        import openai
        self.openai = openai
        self.client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=max_retries, timeout=WAIT)

    def told(self, error):
        response = getattr(error, "response", None)
        return {"class": type(error).__name__, "status": getattr(error, "status_code", None), "code": error.code, "param": error.param,
                "type": error.type, "message": error.message, "retry_after": response.headers.get("retry-after") if response is not None else None}

    def call(self, method, *positional, **args):
        function = self.client
        for part in method.split("."):
            function = getattr(function, part)
        chunks = []
        try:
            result = function(*positional, **args)
            if not args.get("stream"):
                return {"result": result.model_dump(exclude_unset=True)}
            for chunk in result:
                chunks.append(chunk.model_dump(exclude_unset=True))
        except self.openai.APIError as error:
            return ({"chunks": chunks} if args.get("stream") else {}) | {"error": self.told(error)}
        return {"chunks": chunks}

    def close(self):
        self.client.close()


class NodeClient:
    """OpenAI's client for JavaScript."""

    def __init__(self, url, key="none", max_retries=0):
        script = pathlib.Path(__file__).with_name("openai_client.mjs")
        self.process = subprocess.Popen(["node", str(script), url + "/v1", key, str(max_retries)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, method, *positional, **args):
        args |= args.pop("extra_body", {})
        self.process.stdin.write(json.dumps({"method": method, "args": list(positional) or args}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(WAIT)


def texts_of(chunks):
    """The text of each choice, put together of a stream's chunks."""
    texts = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            part = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + part
    return [texts[i] for i in sorted(texts)]


class OpenAiTests:
    """What both of OpenAI's clients must find. `Client` is one of them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = serve("--library", LIBRARY)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        super().tearDownClass()

    def setUp(self):
        self.client = self.Client(self.server.url)
        self.addCleanup(self.client.close)

    def result(self, method, *positional, **args):
        answer = self.client.call(method, *positional, **args)
        self.assertNotIn("error", answer)
        return answer["result"] if "result" in answer else answer["chunks"]

    def error(self, method, *positional, **args):
        answer = self.client.call(method, *positional, **args)
        self.assertIn("error", answer)
        return answer["error"]

    def test_models(self):
        listed = self.result("models.list")
        ids = [model["id"] for model in (listed if isinstance(listed, list) else listed["data"])]
        self.assertEqual(ids[0], "base")
        for name in ("base", "arrow", "lag", "mean", "alpha", "delta"):
            self.assertIn(name, ids)
        model = self.result("models.retrieve", "alpha")
        self.assertEqual((model["id"], model["object"], model["owned_by"], model["parent"]), ("alpha", "model", "quiver", "base"))
        self.assertEqual(model["quiver"]["kind"], "adapter")

    def test_completions_are_what_the_program_generates(self):
        for model, choice in [("base", ()), ("alpha", ("--adapter", LIBRARY / "adapters/alpha")), ("arrow", ("--library", LIBRARY, "--method", "arrow"))]:
            with self.subTest(model):
                expected = generate(PROMPTS[0], 12, *choice, base=BASE)
                answer = self.result("completions.create", model=model, prompt=PROMPTS[0], max_tokens=12, temperature=0,
                                     extra_body={"return_token_ids": True})
                found = answer["choices"][0]
                self.assertEqual(found["token_ids"], expected["ids"])
                self.assertEqual(found["text"], expected["text"])
                self.assertEqual(answer["usage"]["completion_tokens"], len(found["token_ids"]))
                self.assertEqual(answer["model"], model)

    def test_a_stream_adds_up_to_the_whole_text(self):
        for temperature in (0, 1.3):
            args = dict(model="lag", prompt=PROMPTS, max_tokens=24, temperature=temperature, seed=11, n=2, stop=["xq", "zz"])
            whole = self.result("completions.create", **args)
            chunks = self.result("completions.create", stream=True, **args)
            self.assertEqual(texts_of(chunks), [choice["text"] for choice in whole["choices"]])
            ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c.get("finish_reason")]
            self.assertEqual(sorted(ends), sorted(choice["finish_reason"] for choice in whole["choices"]))
            self.assertEqual(len(ends), 12)
            self.assertFalse([chunk for chunk in chunks if "usage" in chunk])

    def test_usage_of_a_stream_comes_if_it_is_asked_for(self):
        args = dict(model="base", prompt=PROMPTS[0], max_tokens=5, temperature=0, extra_body={"ignore_eos": True})
        whole = self.result("completions.create", **args)
        chunks = self.result("completions.create", stream=True, stream_options={"include_usage": True}, **args)
        self.assertEqual([chunk["usage"] for chunk in chunks[:-1]], [None] * (len(chunks) - 1))
        self.assertEqual(chunks[-1]["choices"], [])
        for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
            self.assertEqual(chunks[-1]["usage"][count], whole["usage"][count])
        self.assertEqual(whole["usage"]["completion_tokens"], 5)

    def test_chat(self):
        args = dict(model="alpha", messages=[{"role": "user", "content": "Is it?"}], max_completion_tokens=16, temperature=0)
        whole = self.result("chat.completions.create", **args)
        message = whole["choices"][0]["message"]
        self.assertEqual(message["role"], "assistant")
        rendered = "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
        bare = self.result("completions.create", model="alpha", prompt=rendered, max_tokens=16, temperature=0, stop=["<|im_end|>"])
        self.assertEqual(message["content"], bare["choices"][0]["text"])
        chunks = self.result("chat.completions.create", stream=True, **args)
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(texts_of(chunks), [message["content"]])
        self.assertEqual(chunks[-1]["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"])
        parts = self.result("chat.completions.create", **args | {"messages": [{"role": "user", "content": [{"type": "text", "text": "Is it?"}]}]})
        self.assertEqual(parts["choices"][0]["message"]["content"], message["content"])

    def test_stop_strings_and_n(self):
        args = dict(model="base", prompt=PROMPTS[0], max_tokens=24, temperature=0, extra_body={"ignore_eos": True})
        text = self.result("completions.create", **args)["choices"][0]["text"]
        stop = text[5:7]
        answer = self.result("completions.create", n=3, stop=stop, **args)
        for choice in answer["choices"]:
            self.assertEqual((choice["text"], choice["finish_reason"]), (text[:text.index(stop)], "stop"))
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2])

    def test_a_seed_gives_the_same_answer_again(self):
        args = dict(model="arrow", prompt=PROMPTS[1], max_tokens=16, temperature=1.5, n=4)
        first, again = (self.result("completions.create", seed=5, **args) for _ in range(2))
        other = self.result("completions.create", seed=6, **args)
        drawn = self.result("completions.create", **args)
        repeated = self.result("completions.create", seed=drawn["quiver"]["seed"], **args)

        def texts(answer):
            return [choice["text"] for choice in answer["choices"]]
        self.assertEqual(texts(first), texts(again))
        self.assertNotEqual(texts(first), texts(other))
        self.assertGreater(len(set(texts(first))), 1)
        self.assertEqual(texts(drawn), texts(repeated))

    def test_log_probabilities(self):
        args = dict(model="lag", prompt=PROMPTS[3], max_tokens=6, temperature=0, logprobs=3, extra_body={"ignore_eos": True})
        found = self.result("completions.create", **args)["choices"][0]["logprobs"]
        self.assertEqual({name: len(found[name]) for name in found}, dict.fromkeys(found, 6))
        for chosen, top in zip(found["token_logprobs"], found["top_logprobs"]):
            self.assertEqual(chosen, max(top.values()))
        streamed = self.result("completions.create", stream=True, **args)
        together = [number for chunk in streamed for choice in chunk["choices"] for number in (choice["logprobs"] or {"token_logprobs": []})["token_logprobs"]]
        self.assertEqual(together, found["token_logprobs"])
        chat = self.result("chat.completions.create", model="lag", messages=[{"role": "user", "content": "read"}], max_tokens=4, temperature=0, logprobs=True,
                           top_logprobs=2)
        for token in chat["choices"][0]["logprobs"]["content"]:
            self.assertEqual(token["logprob"], token["top_logprobs"][0]["logprob"])
            self.assertEqual(len(token["top_logprobs"]), 2)

    def test_errors(self):
        chat = dict(model="base", messages=[{"role": "user", "content": "a"}])
        unknown = self.error("completions.create", model="alpa", prompt="a")
        self.assertEqual((unknown["class"], unknown["status"], unknown["code"], unknown["type"]),
                         ("NotFoundError", 404, "model_not_found", "invalid_request_error"))
        self.assertIn("alpha", unknown["message"])
        tools = self.error("chat.completions.create", tools=[{"type": "function", "function": {"name": "f"}}], **chat)
        self.assertEqual((tools["class"], tools["status"], tools["code"], tools["param"]), ("BadRequestError", 400, "unsupported_value", "tools"))
        hot = self.error("chat.completions.create", temperature=3, **chat)
        self.assertEqual((hot["class"], hot["code"], hot["param"]), ("BadRequestError", None, "temperature"))
        long = self.error("completions.create", model="base", prompt="a " * 400, stream=True)
        self.assertEqual((long["class"], long["code"]), ("BadRequestError", "context_length_exceeded"))
        self.assertIn("maximum context length is 256 tokens", long["message"])

    def test_keys(self):
        with serve("--api-key", "sesame") as server:
            for key, fits in (("wrong", False), ("sesame", True)):
                client = self.Client(server.url, key)
                answer = client.call("completions.create", model="base", prompt="a", max_tokens=1)
                client.close()
                self.assertEqual("result" in answer, fits)
                if not fits:
                    self.assertEqual((answer["error"]["class"], answer["error"]["status"], answer["error"]["code"]),
                                     ("AuthenticationError", 401, "invalid_api_key"))
                    self.assertNotIn("sesame", answer["error"]["message"])

    def test_an_error_within_a_stream(self):
        with serve("--max-sequences", 1, "--queue-timeout", 1, base=LONG) as server, Busy(server):
            client = self.Client(server.url)
            answer = client.call("completions.create", model="base", prompt="a", max_tokens=3, stream=True)
            client.close()
            self.assertEqual(answer["chunks"], [])
            self.assertIn("waited too long", answer["error"]["message"])
            self.assertEqual((answer["error"]["class"], answer["error"]["code"]), ("APIError", "queue_timeout"))

    def test_a_busy_server_is_tried_again(self):
        with serve("--max-sequences", 1, "--max-waiting", 0, base=LONG) as server:
            with Busy(server):
                client = self.Client(server.url)
                error = client.call("completions.create", model="base", prompt="a", max_tokens=1)["error"]
                client.close()
                self.assertEqual((error["class"], error["status"], error["code"], error["type"]), ("RateLimitError", 429, "queue_full", "rate_limit_error"))
                self.assertTrue(1 <= int(error["retry_after"]) <= 60)
                patient = self.Client(server.url, max_retries=4)
                answers = []
                thread = threading.Thread(target=lambda: answers.append(patient.call("completions.create", model="base", prompt="a", max_tokens=1)))
                thread.start()
                wait_until(lambda: server.metrics()['quiver_rejected_total{reason="queue_full"}'] >= 2, "a second refusal")
            thread.join(WAIT)
            patient.close()
            self.assertIn("result", answers[0])


class Busy:
    """A client that takes a sequence of the server for long."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        import http.client
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port)
        body = {"model": "base", "prompt": "a", "max_tokens": 30000, "ignore_eos": True, "stream": True, "temperature": 1}
        self.connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        self.response = self.connection.getresponse()
        self.response.readline()
        return self

    def __exit__(self, *unused):
        self.response.close()
        self.connection.close()
        self.server.wait_idle()


@needs_module("openai")
class OpenAiPython(OpenAiTests, Case):
    Client = PythonClient

    def test_many_at_once(self):
        import openai

        async def ask_all():
            async with openai.AsyncOpenAI(base_url=self.server.url + "/v1", api_key="none", max_retries=0) as client:
                async def ask(i):
                    answer = await client.completions.create(model=models[i % len(models)], prompt=PROMPTS[i % len(PROMPTS)], max_tokens=20, temperature=0)
                    return answer.choices[0].text
                return await asyncio.gather(*[ask(i) for i in range(32)])

        models = ["base", "alpha", "beta", "arrow", "lag", "mean", "lag-base"]
        expected = [self.server.texts(models[i % len(models)], PROMPTS[i % len(PROMPTS)], 20)[0] for i in range(32)]
        self.assertGreater(len(set(expected)), 8)
        for _ in range(3):
            self.assertEqual(asyncio.run(ask_all()), expected)


@needs_program("node")
@unittest.skipUnless((NODE_MODULES / "openai").is_dir(), "npm's package 'openai' is not there: scripts/setup.sh --test installs it")
class OpenAiNode(OpenAiTests, Case):
    Client = NodeClient


@needs_program("curl")
class Curl(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = serve()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def curl(self, path, *args):
        return subprocess.run(["curl", "-sS", "--max-time", str(WAIT), *args, self.server.url + path], capture_output=True, text=True, check=True).stdout

    def test_the_banners_command(self):
        command = next(line for line in self.server.banner.splitlines() if line.startswith("try: "))[5:]
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(done.stdout)["object"], "text_completion")

    def test_an_error_is_a_line(self):
        bad = self.curl("/v1/completions", "-H", "Content-Type: application/json", "-d", '{"model":"base","temperature":"hot"}')
        self.assertEqual(len(bad.splitlines()), 1)
        self.assertEqual(json.loads(bad)["error"]["param"], "temperature")
        form = self.curl("/v1/completions", "-w", "\n%{http_code}", "-d", '{"model":"base","prompt":"a"}').splitlines()
        self.assertEqual(form[1], "415")
        self.assertIn("-H 'Content-Type: application/json'", json.loads(form[0])["error"]["message"])
        self.assertEqual(json.loads(self.curl("/v2"))["error"]["type"], "invalid_request_error")

    def test_a_stream(self):
        body = json.dumps({"model": "base", "prompt": PROMPTS[0], "max_tokens": 12, "temperature": 0, "stream": True})
        lines = self.curl("/v1/completions", "-N", "-H", "Content-Type: application/json", "-d", body).split("\n\n")
        self.assertEqual(lines[-2:], ["data: [DONE]", ""])
        text = "".join(json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in lines[:-2])
        self.assertEqual([text], self.server.texts("base", PROMPTS[0], 12))

    def test_a_client_that_goes_frees_its_place(self):
        with serve("--max-sequences", 1, base=LONG) as server:
            for stream in (True, False):
                body = json.dumps({"model": "base", "prompt": "a", "max_tokens": 30000, "ignore_eos": True, "stream": stream})
                args = ["curl", "-sN", "-H", "Content-Type: application/json", "-d", body, server.url + "/v1/completions"]
                clients = [subprocess.Popen(args, stdout=subprocess.DEVNULL) for _ in range(2)]  # one runs, one waits
                wait_until(lambda: (server.metrics()["quiver_running"], server.metrics()["quiver_waiting"]) == (1, 1), "both there")
                for client in clients:
                    client.kill()
                    client.wait()
                server.wait_idle(5)
            self.assertEqual(server.metrics()['quiver_cancelled_total{reason="client_gone"}'], 4)


if __name__ == "__main__":
    in_clients_environment()
    main()
