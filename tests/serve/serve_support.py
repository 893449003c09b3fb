"""What the tests of the server share: starting and stopping it, plain HTTP, the clients' own programs, a tiny library."""

import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))

from test_support import QUIVER, TINY, Case, main, make_tasks, run, write_jsonl  # noqa: E402, F401

CHAT_GOLDEN = ROOT / "tests/golden/chat"
CLIENTS_PYTHON = ROOT / ".venv-clients/bin/python"
NODE_MODULES = pathlib.Path(__file__).parent / "node_modules"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # more only wait for each other where the model is tiny
DEFAULT_BASE = None  # stands for the base of `quiver fetch`
SAID = ("quiver: shutting down", "quiver: warning: adapter", "quiver: calibrating")  # what a server may say on standard error
WAIT = 60  # seconds for what takes a fraction of one: the machine may be busy


def in_clients_environment():
    """Goes on as a program of .venv-clients, where OpenAI's client and lm-eval are. Without that folder tests that need them are skipped."""
    if CLIENTS_PYTHON.exists() and pathlib.Path(sys.executable) != CLIENTS_PYTHON and importlib.util.find_spec("openai") is None:
        os.execv(CLIENTS_PYTHON, [str(CLIENTS_PYTHON), *sys.argv])


def needs_module(name):
    return unittest.skipUnless(importlib.util.find_spec(name), f"the Python package '{name}' is not there: scripts/setup.sh --test installs it")


def needs_program(name):
    return unittest.skipUnless(shutil.which(name), f"the program '{name}' is not there")


def wait_until(claim, what, seconds=WAIT):
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def of_base(base):
    return [] if base is DEFAULT_BASE else ["--base", str(base)]


def threads_of(base):
    return {} if base is DEFAULT_BASE else ONE_THREAD


class Server:
    """A running `quiver serve`. Its standard error is kept and must be empty but for lines that begin with `expected`."""

    def __init__(self, *args, base=TINY, env=None, expected=SAID, launcher=(), port=0):
        self.expected = expected
        command = [*launcher, str(QUIVER), "serve", "--port", str(port), *of_base(base), *map(str, args)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                                        env={**os.environ, **threads_of(base), **(env or {})})
        self.stderr = []
        self.reader = threading.Thread(target=lambda: self.stderr.extend(self.process.stderr), daemon=True)
        self.reader.start()
        self.banner = ""
        while "ready: " not in self.banner or not self.banner.endswith("\n"):
            if not select.select([self.process.stdout], [], [], WAIT)[0]:
                self.process.kill()
                raise AssertionError("quiver serve is not ready")
            part = os.read(self.process.stdout.fileno(), 4096).decode()
            if not part:
                self.reader.join()
                raise AssertionError(f"quiver serve ended with {self.process.wait()}: {''.join(self.stderr)}")
            self.banner += part
        self.url = self.banner.split("ready: ")[1].strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self, sig=signal.SIGTERM, code=0):
        """Ends the server, and checks how it ended."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            found = self.process.wait(WAIT)
        except subprocess.TimeoutExpired as timeout:
            self.process.kill()
            raise AssertionError("quiver serve does not end") from timeout
        finally:
            self.reader.join()
            self.process.stdout.close()
            self.process.stderr.close()
        strange = [line for line in self.stderr if not line.startswith(self.expected)]
        if found != code or strange:
            raise AssertionError(f"quiver serve ended with {found}, expected {code}; standard error: {''.join(self.stderr)}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            return self.stop()
        with contextlib.suppress(AssertionError):
            self.stop()

    def request(self, method, path, body=None, headers=None, timeout=WAIT):
        """(status, headers in lower case, body's bytes)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def get(self, path, key=None):
        status, _, body = self.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        return status, json.loads(body)

    def post(self, path, body, key=None, timeout=WAIT):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, _, answer = self.request("POST", path, raw, headers, timeout)
        return status, json.loads(answer)

    def complete(self, model, prompt, max_tokens=8, **more):
        """The answer to a greedy completion, which must succeed."""
        status, answer = self.post("/v1/completions", {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **more})
        if status != 200:
            raise AssertionError(f"status {status}: {answer}")
        return answer

    def texts(self, model, prompt, max_tokens=8, **more):
        return [choice["text"] for choice in self.complete(model, prompt, max_tokens, **more)["choices"]]

    def metrics(self):
        """Name with its labels -> value."""
        _, _, body = self.request("GET", "/metrics")
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def wait_idle(self, seconds=WAIT):
        """Until nothing runs and nothing waits, and no page is in use."""
        def is_idle():
            now = self.metrics()
            return now["quiver_running"] == now["quiver_waiting"] == now['quiver_kv_pages{state="used"}'] == 0
        wait_until(is_idle, "an idle server", seconds)


def write_chat_base(folder):
    """The tiny base with a chat template."""
    shutil.copytree(TINY, folder)
    shutil.copy(CHAT_GOLDEN / "chat_template.jinja", folder)
    return folder


def train_library(library, data, *more, base=TINY, epochs=3):
    """Adapters that differ: a tiny library, in seconds."""
    run("train", *of_base(base), "--data", data, "--library", library, "--dtype", "float32", "--no-chat", "--batch-size", 4, "--lr", "1e-2",
        "--epochs", epochs, *more, env=threads_of(base))
    return library


def generate(prompt, max_new_tokens, *choice, base=TINY):
    """What `quiver generate` answers."""
    done = run("generate", *of_base(base), "--dtype", "float32", "--no-chat", "--prompt", prompt, "--max-new-tokens", max_new_tokens, "--json", *choice,
               env=threads_of(base))
    return json.loads(done.stdout)


def score(rows, *choice, base=TINY, tmp):
    """What `quiver score` says of {"context", "continuation"} rows."""
    write_jsonl(tmp / "score.jsonl", rows)
    done = run("score", *of_base(base), "--dtype", "float32", "--no-chat", "--input", tmp / "score.jsonl", *choice)
    return [json.loads(line) for line in done.stdout.splitlines()]
