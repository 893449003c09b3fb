#!/usr/bin/env python3
"""What a client, a network or an operator does wrong to `quiver serve`: bodies, hosts, slow readers, signals. A fault that was found becomes a row."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time

from serve_support import QUIVER, ROOT, TINY, WAIT, Case, Server, main, of_base, wait_until, write_chat_base

# Name, body, words of the message, param. Every answer is a 400.
BODIES = [
    ("no JSON", b'{"model":', ["line 1"], None),
    ("no object", b"[]", ["object"], None),
    ("nothing", b"", [], None),
    ("invalid UTF-8", b'{"model":"base","prompt":"\xff\xfe"}', ["UTF-8"], None),
    ("a lone surrogate", b'{"model":"base","prompt":"\\ud800"}', ["line 1"], None),
    ("NUL", b'{"model":"base\x00"}', ["line 1"], None),
    ("nested too deep", b'{"model":"base","prompt":' + b"[" * 100000 + b"]" * 100000 + b"}", ["nested"], None),
    ("too many keys", b"{" + b",".join(b'"%d":0' % i for i in range(330000)) + b"}", [], None),
    ("a number of many digits", b'{"model":"base","prompt":"a","max_tokens":' + b"9" * 1000000 + b"}", [], None),
    ("as many tokens as 64 bits count", b'{"model":"base","prompt":"ab","max_tokens":9223372036854775807}', ["9223372036854775807 were requested"], "max_tokens"),
    ("a fraction of many digits", b'{"model":"base","prompt":"a","temperature":0.' + b"9" * 1000000 + b"}", ["at most 64"], None),
    ("a key twice", b'{"model":"base","prompt":"a","prompt":"b"}', ["prompt", "twice"], None),
    ("NaN", b'{"model":"base","prompt":"a","temperature":NaN}', ["line 1"], None),
    ("an infinite number", b'{"model":"base","prompt":"a","temperature":1e999}', [], None),
    ("a million prompts", b'{"model":"base","prompt":[' + b",".join([b'""'] * 1000000) + b"]}", [], None),
    ("three hundred prompts", json.dumps({"model": "base", "prompt": ["a"] * 300}).encode(), ["256"], "prompt"),
    ("a negative id", b'{"model":"base","prompt":[-1]}', ["-1"], "prompt"),
    ("an id of 2^31", b'{"model":"base","prompt":[2147483648]}', ["2147483648"], "prompt"),
    ("an id of 2^64", b'{"model":"base","prompt":[18446744073709551616]}', [], "prompt"),
    ("an id that is no integer", b'{"model":"base","prompt":[1.5]}', ["1.5"], "prompt"),
    ("an id beyond the vocabulary", b'{"model":"base","prompt":[320]}', ["320"], "prompt"),
    ("ids and texts", b'{"model":"base","prompt":[1,"a"]}', [], "prompt"),
    ("long stop strings", json.dumps({"model": "base", "prompt": "a", "stop": ["s" * 100000] * 30}).encode(), ["256"], "stop"),
    ("many stop strings", json.dumps({"model": "base", "prompt": "a", "stop": ["s"] * 1000}).encode(), ["32"], "stop"),
    ("an empty stop string", b'{"model":"base","prompt":"a","stop":""}', [], "stop"),
    ("n beyond its range", b'{"model":"base","prompt":"a","n":17}', ["16"], "n"),
    ("a seed beyond 64 bits", b'{"model":"base","prompt":"a","seed":18446744073709551616}', [], "seed"),
    ("a bias of no token", b'{"model":"base","prompt":"a","logit_bias":{"400":1}}', ["400"], "logit_bias"),
    ("a bias of text", b'{"model":"base","prompt":"a","logit_bias":{"x":1}}', [], "logit_bias"),
    ("no model", b'{"prompt":"a"}', ["model"], "model"),
    ("a model that is no name", b'{"model":{},"prompt":"a"}', [], "model"),
    ("an unknown member of quiver", b'{"model":"base","prompt":"a","quiver":{"spell":1}}', ["spell"], "quiver"),
    ("options of streams without one", b'{"model":"base","prompt":"a","stream_options":{"include_usage":true}}', [], "stream_options"),
]


class Bodies(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--dtype", "float32")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_rows(self):
        for name, body, words, param in BODIES:
            with self.subTest(name):
                status, answer = self.server.post("/v1/completions", body)
                error = answer["error"]
                self.assertEqual((status, error["type"]), (400, "invalid_request_error"), error)
                self.assertLess(len(error["message"]), 1000)
                for word in words:
                    self.assertIn(word, error["message"])
                if param is not None:
                    self.assertTrue((error["param"] or "").startswith(param), error)
        self.assertEqual(len(self.server.texts("base", "a")), 1)

    def test_bodies_that_are_too_large(self):
        status, answer = self.server.post("/v1/completions", b" " * (5 << 20))
        self.assertEqual((status, answer["error"]["type"]), (413, "invalid_request_error"))
        self.assertEqual(self.server.post("/v1/load_lora_adapter", b" " * (1 << 20))[0], 413)
        self.assertEqual(self.server.post("/nowhere", b" " * (1 << 20))[0], 413)

    def test_paths_and_methods(self):
        for method, path, expected in [("GET", "/v1/completions", 405), ("POST", "/v1/models", 405), ("GET", "/v1/models/none", 404), ("GET", "/../etc/passwd", 404),
                                       ("GET", "/v1/models/%2e%2e%2fetc", 404), ("GET", "/%00", 400), ("DELETE", "/v1/models/base", 405), ("GET", "/" + "x" * 9000, 404)]:
            with self.subTest(path[:40], method=method):
                status, headers, body = self.server.request(method, path)
                self.assertEqual(status, expected)
                self.assertEqual(headers["content-type"], "application/json")
                self.assertEqual(set(json.loads(body)["error"]), {"message", "type", "param", "code"})

    def test_hosts_and_origins(self):
        def status(**headers):
            return self.server.request("GET", "/v1/models", headers=headers)[0]
        self.assertEqual(status(Host="evil.example"), 403)
        self.assertEqual(status(Host=f"evil.example:{self.server.port}"), 403)
        self.assertEqual(status(Host=f"localhost:{self.server.port}"), 200)
        self.assertEqual(status(Origin="http://evil.example"), 403)
        self.assertEqual(status(Origin="null"), 403)
        self.assertEqual(status(Origin=f"http://127.0.0.1:{self.server.port}", Host=f"127.0.0.1:{self.server.port}"), 200)
        _, headers, _ = self.server.request("GET", "/v1/models")
        self.assertNotIn("access-control-allow-origin", headers)


def start_fails(*args):
    done = subprocess.run([str(QUIVER), "serve", *of_base(TINY), *map(str, args)], capture_output=True, text=True, cwd=ROOT, timeout=WAIT)
    return done.returncode, done.stderr.strip().splitlines()[-1]


class Operator(Case):
    def test_starts_that_are_refused(self):
        code, line = start_fails("--port", 0, "--host", "0.0.0.0")
        self.assertEqual(code, 2)
        self.assertIn("give --api-key, or --no-auth", line)
        with Server() as server:
            code, line = start_fails("--port", server.port)
            self.assertEqual(code, 4)
            self.assertIn(f"cannot listen on 127.0.0.1 port {server.port}", line)
        for args, words in [(["--host", "localhost.example", "--no-auth"], "is no IPv4 or IPv6 address"), (["--alias", "x"], "NAME=MODEL"),
                            (["--kv-memory", 1, "--context", 256, "--alias", "a=b"], "there is no library")]:
            code, line = start_fails("--port", 0, *args)
            self.assertEqual(code, 2, line)
            self.assertIn(words, line)

    def test_few_descriptors(self):
        launcher = ["bash", "-c", 'ulimit -n 64; exec "$@"', "-"]
        with Server(launcher=launcher) as server:
            sockets = []
            for _ in range(90):
                sockets.append(socket.create_connection(("127.0.0.1", server.port), timeout=WAIT))
            time.sleep(0.5)
            self.assertIsNone(server.process.poll())
            for one in sockets:
                one.close()
            self.assertEqual(len(server.texts("base", "a")), 1)


class Running(Case):
    """A server whose answers are long."""

    def setUp(self):
        super().setUp()
        self.base = write_chat_base(self.tmp / "base")
        config = json.loads((self.base / "config.json").read_text())
        (self.base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32768}))

    def stream(self, server, max_tokens=30000):
        """A connection on which a long answer has begun."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
        body = {"model": "base", "prompt": "a", "max_tokens": max_tokens, "ignore_eos": True, "stream": True, "logprobs": 5}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def test_a_signal_lets_answers_end_and_cuts_none_in_the_middle(self):
        server = Server("--drain-seconds", 1, "--max-sequences", 2, base=self.base)
        streams = [self.stream(server) for _ in range(3)]  # the third one waits
        wholes = []

        def ask():
            wholes.append(server.post("/v1/completions", {"model": "base", "prompt": "a", "max_tokens": 30000, "ignore_eos": True}))
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: (server.metrics()["quiver_running"], server.metrics()["quiver_waiting"]) == (2, 2), "two run, two wait")
        server.process.send_signal(signal.SIGTERM)
        for connection, response in streams:
            events = response.read().decode().split("\n\n")
            connection.close()
            self.assertEqual(events[-1], "")
            told = [json.loads(event.removeprefix("data: ")) for event in events[:-1] if not event.startswith(":")]
            self.assertEqual(told[-1]["error"]["code"], "shutting_down")
            self.assertFalse([chunk for chunk in told[:-1] for choice in chunk["choices"] if choice["finish_reason"]])
        thread.join()
        self.assertEqual((wholes[0][0], wholes[0][1]["error"]["code"]), (503, "shutting_down"))
        server.stop(sig=0)  # a second signal would end it at once

    def test_a_second_signal_ends_at_once(self):
        server = Server("--drain-seconds", 60, base=self.base)
        connection, response = self.stream(server)
        response.readline()
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: server.stderr, "the notice")
        server.stop(signal.SIGINT, code=-signal.SIGINT)
        connection.close()

    def test_a_kill_harms_nothing(self):
        server = Server(base=self.base)
        streams = [self.stream(server) for _ in range(4)]
        streams[0][1].readline()
        server.stop(signal.SIGKILL, code=-signal.SIGKILL)
        for connection, _ in streams:
            connection.close()
        with Server(port=server.port, base=self.base) as again:
            self.assertEqual(len(again.texts("base", "a")), 1)

    def test_a_slow_reader_holds_up_nobody(self):
        with Server(base=self.base) as server:
            slow = socket.socket()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            slow.connect(("127.0.0.1", server.port))
            body = json.dumps({"model": "base", "prompt": "a", "max_tokens": 32000, "ignore_eos": True, "stream": True, "logprobs": 20, "n": 4}).encode()
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            wait_until(lambda: server.metrics()["quiver_running"] == 4, "the slow reader's answers")
            generated = 'quiver_generated_tokens_total{model="base"}'
            for _ in range(3):
                self.assertEqual(len(server.texts("base", "a", 4)), 1)
            # Its answers pause, and it is given up in the end.
            wait_until(lambda: server.metrics().get('quiver_cancelled_total{reason="slow_reader"}') == 1, "the slow reader is given up", 120)
            slow.close()
            server.wait_idle()
            self.assertLess(server.metrics()[generated], 4 * 32000)

    def test_clients_that_go_at_any_byte(self):
        body = json.dumps({"model": "base", "prompt": "a", "max_tokens": 40, "ignore_eos": True, "stream": True}).encode()
        raw = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        with Server(base=self.base) as server:
            before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            for length in range(0, len(raw) + 1, 3):
                with socket.create_connection(("127.0.0.1", server.port)) as one:
                    one.sendall(raw[:length])
            for length in range(1, 3000, 97):
                with socket.create_connection(("127.0.0.1", server.port)) as one:
                    one.sendall(raw)
                    got = 0
                    while got < length:
                        part = one.recv(length - got)
                        got += len(part)
                        if not part:
                            break
            server.wait_idle()
            wait_until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) <= before + 1, "as few descriptors as before")
            self.assertEqual(len(server.texts("base", "a")), 1)


if __name__ == "__main__":
    main()
