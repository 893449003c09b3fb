#!/usr/bin/env python3
"""Adapters that come, go and are replaced while `quiver serve` answers, and requests of many of them at once."""

import pathlib
import shutil
import tempfile
import threading
import time

from serve_support import Case, Server, generate, main, make_tasks, run, train_library, wait_until, write_chat_base

PROMPTS = ["Task alpha. Say", "Task beta. Say", "read twice", "archer", "é and 猫", "negative review text answer"]
NAMES = ("alpha", "beta", "gamma", "delta")


def setUpModule():
    """A tiny base with a chat template, a library, and other adapters of the same names."""
    global FOLDER, BASE, LIBRARY, MORE
    FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="quiver-serve-"))
    BASE = write_chat_base(FOLDER / "base")
    data = make_tasks(FOLDER / "data", NAMES)
    LIBRARY = train_library(FOLDER / "library", data)
    MORE = train_library(FOLDER / "more", data, "--seed", 7, epochs=6)


def tearDownModule():
    shutil.rmtree(FOLDER, ignore_errors=True)


def serve(*args):
    return Server("--dtype", "float32", *args, base=BASE)


class HotAdapters(Case):
    """Adapters that come, go and are replaced while requests run."""

    def setUp(self):
        super().setUp()
        self.library = self.tmp / "library"
        shutil.copytree(LIBRARY, self.library)
        self.more = MORE

    def of_program(self, folder, prompt=PROMPTS[0]):
        return generate(prompt, 10, "--adapter", folder, base=BASE)["text"]

    def test_the_admin_endpoints(self):
        with serve("--library", self.library, "--adapter-dir", self.more, "--api-key", "user", "--admin-key", "admin") as server:
            load = {"lora_name": "fresh", "lora_path": str(self.more / "adapters/beta")}
            self.assertEqual(server.post("/v1/load_lora_adapter", load)[0], 401)
            self.assertEqual(server.post("/v1/load_lora_adapter", load, "user")[0], 401)
            outside = server.post("/v1/load_lora_adapter", load | {"lora_path": str(FOLDER / "library/adapters/alpha")}, "admin")
            self.assertEqual((outside[0], outside[1]["error"]["code"]), (403, "forbidden"))
            self.assertEqual(server.post("/v1/load_lora_adapter", load, "admin")[0], 200)
            ask = {"model": "fresh", "prompt": PROMPTS[0], "max_tokens": 10, "temperature": 0}
            self.assertEqual(server.post("/v1/completions", ask, "user")[1]["choices"][0]["text"], self.of_program(load["lora_path"]))
            again = server.post("/v1/load_lora_adapter", load, "admin")
            self.assertEqual((again[0], again[1]["error"]["code"]), (409, "adapter_exists"))
            self.assertEqual(server.post("/v1/load_lora_adapter", load | {"lora_name": "arrow"}, "admin")[0], 409)
            other = load | {"lora_path": str(self.more / "adapters/gamma"), "load_inplace": True}
            self.assertEqual(server.post("/v1/load_lora_adapter", other, "admin")[0], 200)
            self.assertEqual(server.post("/v1/completions", ask, "user")[1]["choices"][0]["text"], self.of_program(other["lora_path"]))
            self.assertEqual(server.post("/v1/unload_lora_adapter", {"lora_name": "fresh", "wait": True}, "admin")[0], 200)
            gone = server.post("/v1/completions", ask, "user")
            self.assertEqual((gone[0], gone[1]["error"]["code"]), (404, "model_not_found"))
            self.assertEqual(server.post("/v1/unload_lora_adapter", {"lora_name": "fresh"}, "admin")[0], 404)

    def test_another_process_changes_the_library(self):
        with serve("--library", self.library, "--admin-key", "admin") as server:
            def status(name):
                return server.post("/v1/completions", {"model": name, "prompt": "a", "max_tokens": 1})[0]
            self.assertEqual((status("alpha"), status("fresh")), (200, 404))
            arrow = server.texts("arrow", PROMPTS, 16)
            add = ["library", "add", "--base", BASE, "--dtype", "float32", "--library", self.library]
            run(*add, "--name", "fresh", self.more / "adapters/delta")
            wait_until(lambda: status("fresh") == 200, "an adapter that was added", 2)
            self.assertEqual(server.texts("fresh", PROMPTS[0], 10)[0], self.of_program(self.more / "adapters/delta"))
            expected = [generate(prompt, 16, "--library", self.library, "--method", "arrow", base=BASE)["text"] for prompt in PROMPTS]
            self.assertEqual(server.texts("arrow", PROMPTS, 16), expected)
            self.assertNotEqual(arrow, expected)
            self.assertEqual(server.post("/v1/unload_lora_adapter", {"lora_name": "fresh"}, "admin")[0], 200)
            self.assertEqual(status("fresh"), 404)  # until another takes its place
            run(*add, "--name", "fresh", "--force", self.more / "adapters/alpha")
            wait_until(lambda: status("fresh") == 200, "an adapter in the place of one that was unloaded", 2)
            expected = self.of_program(self.more / "adapters/alpha")
            self.assertNotEqual(expected, self.of_program(self.more / "adapters/delta"))
            wait_until(lambda: server.texts("fresh", PROMPTS[0], 10)[0] == expected, "an adapter that was replaced", 2)
            run("library", "remove", "--library", self.library, "fresh")
            wait_until(lambda: status("fresh") == 404, "an adapter that was removed", 2)
            self.assertEqual(status("alpha"), 200)
            wait_until(lambda: server.texts("arrow", PROMPTS, 16) == arrow, "the method without it", 2)

    def test_requests_meanwhile_are_answered_by_one_version_or_the_other(self):
        folders = [self.more / "adapters" / name for name in ("alpha", "beta")]
        versions = [self.of_program(folder) for folder in folders]
        self.assertNotEqual(*versions)
        with serve("--library", self.library, "--adapter-dir", self.more, "--admin-key", "admin") as server:
            def load(which):
                body = {"lora_name": "turning", "lora_path": str(folders[which]), "load_inplace": True}
                self.assertEqual(server.post("/v1/load_lora_adapter", body, "admin")[0], 200)
            load(0)
            bounds, faults, is_over = [(time.monotonic(), 0, True)], [], threading.Event()
            others = {name: server.texts(name, PROMPTS[0], 10)[0] for name in ("base", "alpha", "lag")}

            def ask():
                while not is_over.is_set():
                    start = time.monotonic()
                    text = server.texts("turning", PROMPTS[0], 10)[0]
                    end = time.monotonic()
                    known = list(bounds)
                    before = [version for at, version, is_done in known if is_done and at <= start][-1]
                    allowed = {before} | {version for at, version, _ in known if start <= at <= end}
                    if before != known[-1][1] or not known[-1][2]:
                        allowed |= {known[-1][1]}  # whose loading has begun
                    if text not in {versions[version] for version in allowed}:
                        faults.append((text, allowed))
                    for name, expected in others.items():
                        if server.texts(name, PROMPTS[0], 10)[0] != expected:
                            faults.append(name)

            threads = [threading.Thread(target=ask) for _ in range(3)]
            for thread in threads:
                thread.start()
            for i in range(30):
                which = (i + 1) % 2
                bounds.append((time.monotonic(), which, False))
                load(which)
                bounds.append((time.monotonic(), which, True))
                self.assertEqual(server.texts("turning", PROMPTS[0], 10)[0], versions[which])
            is_over.set()
            for thread in threads:
                thread.join()
            self.assertEqual(faults, [])

    def test_mixed_requests_at_once_are_answered_as_alone(self):
        models = ["base", "alpha", "beta", "arrow", "lag", "mean", "lag-base", "gated-arrow"]
        asked = [(model, prompt) for model in models for prompt in PROMPTS]
        with serve("--library", self.library, "--no-chat") as server:  # gated-arrow measures evidence on text as it is served
            alone = [server.complete(model, prompt, 20, logprobs=2)["choices"][0] for model, prompt in asked]
            together = [None] * len(asked)

            def ask(i):
                together[i] = server.complete(*asked[i], 20, logprobs=2)["choices"][0]
            for _ in range(2):
                threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asked))]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                for (model, prompt), one, other in zip(asked, alone, together):
                    with self.subTest(model, prompt=prompt):
                        self.assertEqual(one["text"], other["text"])
                        for a, b in zip(one["logprobs"]["token_logprobs"], other["logprobs"]["token_logprobs"], strict=True):
                            self.assertAlmostEqual(a, b, delta=1e-4)
        for i, (model, prompt) in enumerate(asked[::7]):
            choice = () if model == "base" else ("--adapter", LIBRARY / "adapters" / model) if model in NAMES else ("--library", LIBRARY, "--method", model)
            self.assertEqual(alone[7 * i]["text"], generate(prompt, 20, *choice, base=BASE)["text"], (model, prompt))


if __name__ == "__main__":
    main()
