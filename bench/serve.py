#!/usr/bin/env python3
"""`quiver serve` side by side with llama.cpp's llama-server and PEFT's Arrow, in one run on one machine (make bench-serve).

The same GGUF file, threads, pinned cores, prompts; greedy answers of a fixed length. Servers take turns within a round; medians of rounds are shown.

  read         the machine's own rate of reading memory, with one core and with two
  decode       one answer at a time by the base, with one core and with two: tokens/s, and the share of the read rate
  adapters     one answer at a time under Arrow and LAG over 23 and 256 adapters, and by one adapter, against the base; PEFT's Arrow over 23
  batch        16 answers at once against one, 64 answers of the base, and of as many adapters and methods
  prefill      prompts of 512 tokens: base, Arrow over 64 adapters, PEFT's Arrow over 64
  cached       time to the first token behind a cached prefix of 512 tokens
  scoring      choices as lm-eval asks for them, 32 requests at once, against `quiver score` of the same requests in one file
  memory       the most memory that the server holds, less its cache and what it holds with a model of 100 KB
  stolen       decoding with two threads while another process takes one of the cores
  load         serving.md's shapes in closed loops of 1, 4, 16 and 64 clients and in open loops at 50, 80 and 95 % of the best of these

Adapters have random factors, rank 4 on q, k, v and o. llama-server is built from the sources that llama-cpp-python ships (scripts/llama_server.sh).
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import load_client as client

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("read", "decode", "adapters", "batch", "prefill", "cached", "scoring", "memory", "stolen", "load")
SERVERS = ("quiver", "llama")
KV_MIB = 1024
# Tokens in (shared by all, own) and out of a request.
SHAPES = {"short": (0, 32, 32), "chat": (512, 64, 128), "long": (0, 1500, 64)}
CLIENTS = (1, 4, 16, 64)
SHARES = (0.5, 0.8, 0.95)


def call(command, **more):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return done.stdout


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def pinned(cores):
    return ["taskset", "-c", ",".join(map(str, cores))]


class Running:
    """A server that answers."""

    def __init__(self, command, env, log):
        self.log = log
        with open(log, "w") as out:
            self.process = subprocess.Popen([str(c) for c in command], cwd=ROOT, env={**os.environ, **env}, stdout=out, stderr=out)

    def wait(self, port, path):
        self.port = port
        for _ in range(600):
            if self.process.poll() is not None:
                sys.exit(f"failed: {pathlib.Path(self.log).read_text()[-2000:]}")
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).status == 200:
                    return self
            time.sleep(0.1)
        sys.exit(f"not ready: {pathlib.Path(self.log).read_text()[-2000:]}")

    def peak_bytes(self):
        line = next(s for s in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Bench:
    """What a round runs. Every method returns {name of a figure: value}."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.base = pathlib.Path(last_json(call([options.quiver, "fetch", "--json", "--python", options.python]))["path"])
        self.cores = sorted(os.sched_getaffinity(0))
        self.names = [name for name in SERVERS if name == "quiver" or options.llama_server]
        self.tokens = self.text_tokens()
        self.at = 0  # of the next prompt, so that no two share a beginning
        self.next_port = 18080
        self.step_bytes = int(call([options.python, "-c", STEP_BYTES, self.base]))

    def text_tokens(self):
        """Ids of real text."""
        texts = []
        for path in sorted((ROOT / "data/heldout_sni").glob("*.jsonl.zst")):
            for line in call(["zstd", "-dc", path]).splitlines()[:40]:
                texts.append(json.dumps(json.loads(line)["input"]) + "\n")
        lines = call([self.options.quiver, "tokenize", "--base", self.base, "--json-lines"], input="".join(texts)).splitlines()
        return [token for line in lines for token in json.loads(line)["ids"]]

    def prompt(self, length):
        """Ids that have not been asked for yet."""
        if self.at + length + 1 > len(self.tokens):
            self.at = random.Random(self.at).randrange(1000)
        found = self.tokens[self.at : self.at + length]
        self.at += length + 1
        return found

    def library(self, count):
        """A library of so many random adapters."""
        library = self.folder / f"library{count}"
        if not library.exists():
            adapters = self.folder / f"adapters{count}"
            call([self.options.python, ROOT / "bench/peers/random_adapters.py", adapters, count])
            call([self.options.quiver, "library", "add", "--library", library, *sorted(adapters.iterdir())])
        return library

    @contextlib.contextmanager
    def server(self, name, threads, *more, slots=64, context=1024, base=None):
        port, self.next_port = self.next_port, self.next_port + 1
        cores = self.cores[:threads]
        log = self.folder / f"{name}-{port}.log"
        if name == "quiver":
            command = [self.options.quiver, "serve", "--base", base or self.base, "--port", port, "--threads", threads, "--kv-memory", KV_MIB, *more]
        else:
            command = [self.options.llama_server, "-m", self.base, "--port", port, "--threads", threads, "--threads-batch", threads, "--parallel", slots,
                       "--ctx-size", slots * context, "--no-ui", "--offline", *more]
        running = Running([*pinned(cores), *command], {}, log)
        try:
            yield running.wait(port, "/health")
        finally:
            running.stop()

    def ask(self, server, prompt_tokens, new_tokens, model="base", prompt=None):
        async def one():
            connection = client.Connection(server.port)
            answer = await connection.ask(client.completion(prompt or self.prompt(prompt_tokens), new_tokens, model))
            connection.close()
            return answer

        answer = asyncio.run(one())
        if answer.status != 200 or answer.tokens_out != new_tokens:
            sys.exit(f"failed: status {answer.status}, {answer.tokens_out} of {new_tokens} tokens")
        return answer

    def rate(self, server, model="base", new_tokens=96):
        return client.decode_rate(self.ask(server, 32, new_tokens, model))

    def rates(self, servers, runs=3):
        """Tokens/s of each, by turns: {name: median}. servers: {name: (server, model)}"""
        seen = {name: [] for name in servers}
        for run in range(runs + 1):
            for name, (server, model) in servers.items():
                value = self.rate(server, model, 16 if run == 0 else 96)
                if run > 0:
                    seen[name].append(value)
        return {name: statistics.median(values) for name, values in seen.items()}

    # The parts.

    def read(self):
        return {f"{threads}": last_json(call([*pinned(self.cores[:threads]), self.options.quiver, "bench", "memory", "--threads", threads, "--json"]))
                ["gigabytes_per_second"] for threads in (1, 2)}

    def decode(self):
        figures = {}
        for threads in (1, 2):
            with contextlib.ExitStack() as stack:
                servers = {name: (stack.enter_context(self.server(name, threads)), "base") for name in self.names}
                for name, rate in self.rates(servers).items():
                    figures[f"{name}_{threads}"] = rate
            read = self.read()[str(threads)]
            figures[f"share_{threads}"] = figures[f"quiver_{threads}"] * self.step_bytes / 1e9 / read
        return figures

    def peft(self, count, new_tokens=16):
        adapters = self.folder / f"adapters{count}"
        self.library(count)
        return last_json(call([*pinned(self.cores[:2]), self.options.python, ROOT / "bench/peers/peft_arrow.py", "--adapters", adapters, "--count", count,
                               "--threads", 2, "--dtype", self.options.peer_dtype, "--base", self.base, "--runs", 1, "--new-tokens", new_tokens]))

    def adapters(self):
        figures = {}
        for count in (23, 256):
            with self.server("quiver", 2, "--library", self.library(count), "--preload", "arrow,lag,random000") as server:
                rates = self.rates({"base": (server, "base"), "arrow": (server, "arrow"), "lag": (server, "lag"), "adapter": (server, "random000")})
                for name, rate in rates.items():
                    figures[f"{name}_{count}_ms"] = 1000 / rate
        if self.options.peft:
            found = self.peft(23)
            figures |= {"peft_base_ms": 1000 * found["token_seconds"], "peft_arrow_23_ms": 1000 * found["arrow_token_seconds"]}
        return figures

    def together(self, server, models, new_tokens=128):
        """Tokens/s of answers at once: of the third of all tokens that came the fastest one after another, when most were being written."""
        bodies = [client.completion(self.prompt(8), new_tokens, model) for model in models]
        answers, _ = asyncio.run(client.closed_loop(server.port, bodies, len(bodies)))
        if any(a.status != 200 for a in answers):
            sys.exit(f"failed: statuses {sorted({a.status for a in answers})}")
        times = sorted(t for a in answers for t in a.times)
        share = len(times) // 3
        return share / min(end - begin for begin, end in zip(times, times[share:]))

    def batch(self):
        figures = {}
        library = self.library(64)
        mixed = ["base", "arrow", "lag", "mean", *[f"random{i:03}" for i in range(60)]]
        with contextlib.ExitStack() as stack:
            servers = {name: stack.enter_context(self.server(name, 2, *(("--library", library, "--preload", ",".join(mixed[1:])) if name == "quiver" else ())))
                       for name in self.names}
            for name, server in servers.items():
                self.together(server, ["base"] * 16, 8)
                figures[f"{name}_1"] = self.rate(server)
                figures[f"{name}_16"] = self.together(server, ["base"] * 16)
                figures[f"{name}_64"] = self.together(server, ["base"] * 64)
            server = servers["quiver"]
            self.together(server, mixed, 8)
            figures["quiver_64_mixed"] = self.together(server, mixed)
            figures["quiver_64_arrow"] = self.together(server, ["arrow"] * 64)
        return figures

    def prefill(self):
        figures = {}
        with contextlib.ExitStack() as stack:
            more = {"quiver": ("--library", self.library(64), "--preload", "arrow"), "llama": ()}
            servers = {name: stack.enter_context(self.server(name, 2, *more[name])) for name in self.names}
            runs = {**{name: (server, "base") for name, server in servers.items()}, "arrow": (servers["quiver"], "arrow")}
            seen = {name: [] for name in runs}
            for run in range(4):
                for name, (server, model) in runs.items():
                    answer = self.ask(server, 512, 1, model)
                    if run > 0:
                        seen[name].append(512 / answer.first())
            figures |= {name: statistics.median(values) for name, values in seen.items()}
        if self.options.peft:
            found = self.peft(64, new_tokens=1)
            figures |= {"peft": 512 / found["prompt_seconds"], "peft_arrow": 512 / found["arrow_prompt_seconds"]}
        return figures

    def cached(self):
        figures = {}
        with contextlib.ExitStack() as stack:
            for name in self.names:
                server = stack.enter_context(self.server(name, 2))
                prompt = self.prompt(512)
                self.ask(server, 0, 8, prompt=prompt)
                answers = [self.ask(server, 0, 8, prompt=prompt) for _ in range(5)]
                figures[f"{name}_first_ms"] = 1000 * statistics.median(a.first() for a in answers)
                figures[f"{name}_step_ms"] = 1000 * statistics.median(client.median_gap(a) for a in answers)
        return figures

    def questions(self):
        """Choices of the multiple-choice sets."""
        for path in sorted((ROOT / "data/heldout_mc").glob("*.jsonl.zst")):
            for line in call(["zstd", "-dc", path]).splitlines()[:self.options.questions]:
                row = json.loads(line)
                for choice in row["choices"]:
                    is_partial = row["mode"] == "partial"
                    yield {"context": row["context"] + choice if is_partial else row["context"], "continuation": " " + (row["continuation"] if is_partial else choice)}

    def scoring(self):
        requests = list(self.questions())
        whole = [json.dumps(r["context"] + r["continuation"]) + "\n" for r in requests]
        ids = [json.loads(line)["ids"] for line in
               call([self.options.quiver, "tokenize", "--base", self.base, "--json-lines"], input="".join(whole)).splitlines()]
        bodies = [{"model": "base", "prompt": tokens, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True, "seed": 1234}
                  for tokens in sorted(ids, key=len, reverse=True)]  # lm-eval's order
        figures = {}
        with self.server("quiver", 2) as server:  # llama-server has no echo
            asyncio.run(client.closed_loop(server.port, bodies[:4], 4))
            answers, seconds = asyncio.run(client.closed_loop(server.port, bodies, 32))
            if any(a.status != 200 for a in answers):
                sys.exit(f"failed: statuses {sorted({a.status for a in answers})}")
            figures["server"] = len(answers) / seconds

        def seconds_of(some):
            file = self.folder / "requests.jsonl"
            file.write_text("".join(json.dumps(r) + "\n" for r in some))
            start = time.monotonic()
            call([*pinned(self.cores[:2]), self.options.quiver, "score", "--no-chat", "--base", self.base, "--input", file, "--threads", 2])
            return time.monotonic() - start

        first = seconds_of(requests[:1])
        return figures | {"score": len(requests) / (seconds_of(requests) - first)}

    def memory(self):
        figures = {"file_mib": self.base.stat().st_size / 2**20}
        with self.server("quiver", 2, base=ROOT / "tests/golden/model/llama-tied") as server:  # what the program takes with a model of 100 KB
            self.ask(server, 0, 8, prompt=[3, 4, 5])
            figures["program_mib"] = server.peak_bytes() / 2**20
        with self.server("quiver", 2) as server:
            self.together(server, ["base"] * 16, 8)
            self.ask(server, 512, 8)
            figures |= {"peak_mib": server.peak_bytes() / 2**20, "cache_mib": self.cache_used(server)}
        return figures

    def cache_used(self, server):
        """MiB of the cache that have been written at most: pages that are in use or cached."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
        pages = {line.split('"')[1]: float(line.split()[-1]) for line in text.splitlines() if line.startswith("quiver_kv_pages{")}
        return KV_MIB * (pages["used"] + pages["cached"]) / sum(pages.values())

    def stolen(self):
        figures = {}
        for name in self.names:
            with self.server(name, 2) as server:
                self.rate(server, new_tokens=16)
                figures[f"{name}_alone"] = self.rate(server)
                thief = subprocess.Popen([*pinned(self.cores[1:2]), sys.executable, "-c", "while True: pass"])
                try:
                    figures[f"{name}_beside"] = statistics.median(self.rate(server, new_tokens=64) for _ in range(3))
                finally:
                    thief.kill()
                    thief.wait()
        return figures

    def bodies(self, shape, count, model="base"):
        shared, own, out = SHAPES[shape]
        prefix = self.tokens[:shared]
        return [client.completion(prefix + self.prompt(own), out, model) for _ in range(count)]

    def load(self):
        """{server: {shape: {loop: summary}}}, not figures of a median."""
        found = {}
        mixed = ["arrow", "lag", *[f"random{i:03}" for i in range(23)]]
        for name in self.names:
            more = ("--library", self.library(23), "--preload", ",".join(mixed), "--queue-timeout", 3600) if name == "quiver" else ()
            with self.server(name, 2, *more, context=2048) as server:
                found[name] = {shape: self.loops(server, shape) for shape in SHAPES}
                if name == "quiver":
                    for models in (["arrow"], ["lag"], mixed):
                        bodies = self.bodies("chat", 48)
                        for i, body in enumerate(bodies):
                            body["model"] = models[i % len(models)]
                        found[name]["chat"]["16 clients, " + (models[0] if len(models) == 1 else "mixed")] = client.summary(
                            *asyncio.run(client.closed_loop(server.port, bodies, 16)))
        return found

    def loops(self, server, shape):
        print(f"  load: {shape}, port {server.port}", file=sys.stderr)
        scale = self.options.load_requests / (8 if shape == "long" else 1)
        found, best = {}, 0.0
        for clients in CLIENTS:
            count = max(clients, round(scale * min(1.0, (1 + clients) / 17)))
            found[f"{clients} clients"] = client.summary(*asyncio.run(client.closed_loop(server.port, self.bodies(shape, count), clients)))
            best = max(best, found[f"{clients} clients"]["requests_per_second"])
        for share in SHARES:
            loop = client.open_loop(server.port, self.bodies(shape, round(scale)), share * best)
            found[f"open, {share:.0%} of {best:.2f} requests/s"] = client.summary(*asyncio.run(loop))
        return found


# Bytes that a step of one row reads: every matrix once; the table of embeddings is the head, too.
STEP_BYTES = "import gguf, sys; print(sum(t.n_bytes for t in gguf.GGUFReader(sys.argv[1]).tensors if len(t.shape) == 2))"


def lines_of(medians, step_bytes):
    """Rows (what, figure, comparison, goal) of the table."""
    rows = []

    def row(what, figure, comparison="", goal=""):
        rows.append((what, figure, comparison, goal))

    for threads in (1, 2):
        if "decode" in medians:
            f = medians["decode"]
            mine = f[f"quiver_{threads}"]
            row(f"decode, base, {threads} thread{'s'[:threads - 1]}", f"{mine:.1f} tokens/s", f"{100 * f[f'share_{threads}']:.0f} % of the read rate", "75 %")
            if f"llama_{threads}" in f:
                row("  llama-server", f"{f[f'llama_{threads}']:.1f} tokens/s", f"{mine / f[f'llama_{threads}']:.2f} times", "2")
    if "adapters" in medians:
        f = medians["adapters"]
        for count, goal in ((23, 1.12), (256, 1.30)):
            row(f"decode, base beside {count} adapters", f"{f[f'base_{count}_ms']:.2f} ms")
            for name in ("arrow", "lag"):
                row(f"  {name} over {count}", f"{f[f'{name}_{count}_ms']:.2f} ms", f"{f[f'{name}_{count}_ms'] / f[f'base_{count}_ms']:.3f} times", f"{goal}")
        row("  one adapter", f"{f['adapter_23_ms']:.2f} ms", f"{f['adapter_23_ms'] / f['base_23_ms']:.3f} times")
        if "peft_arrow_23_ms" in f:
            row("  PEFT, base", f"{f['peft_base_ms']:.1f} ms")
            row("  PEFT, Arrow over 23", f"{f['peft_arrow_23_ms']:.1f} ms", f"{f['peft_arrow_23_ms'] / f['peft_base_ms']:.2f} times; Quiver is "
                f"{f['peft_arrow_23_ms'] / f['arrow_23_ms']:.1f} times as fast")
    if "batch" in medians:
        f = medians["batch"]
        for name in SERVERS:
            if f"{name}_16" in f:
                row(f"16 at once, {name}", f"{f[f'{name}_16']:.0f} tokens/s", f"{f[f'{name}_16'] / f[f'{name}_1']:.2f} times one", "4" if name == "quiver" else "")
                row(f"64 at once, {name}", f"{f[f'{name}_64']:.0f} tokens/s", f"{f[f'{name}_64'] / f[f'{name}_1']:.2f} times one")
        row("64 of as many adapters and methods", f"{f['quiver_64_mixed']:.0f} tokens/s", f"{100 * f['quiver_64_mixed'] / f['quiver_64']:.0f} % of 64 of the base", "85 %")
        row("64 under Arrow", f"{f['quiver_64_arrow']:.0f} tokens/s", f"{100 * f['quiver_64_arrow'] / f['quiver_64']:.0f} %")
    if "prefill" in medians:
        f = medians["prefill"]
        row("prompt of 512, base", f"{f['quiver']:.0f} tokens/s")
        if "llama" in f:
            row("  llama-server", f"{f['llama']:.0f} tokens/s", f"{f['quiver'] / f['llama']:.2f} times", "5")
        row("  Arrow over 64", f"{f['arrow']:.0f} tokens/s", f"{f['quiver'] / f['arrow']:.2f} times the base's time", "1.15")
        if "peft" in f:
            row("  PEFT, base", f"{f['peft']:.0f} tokens/s")
            row("  PEFT, Arrow over 64", f"{f['peft_arrow']:.0f} tokens/s", f"{f['peft'] / f['peft_arrow']:.2f} times its base's time")
    if "cached" in medians:
        f = medians["cached"]
        for name in SERVERS:
            if f"{name}_first_ms" in f:
                row(f"first token behind 512 cached, {name}", f"{f[f'{name}_first_ms']:.1f} ms", f"{f[f'{name}_first_ms'] / f[f'{name}_step_ms']:.2f} steps",
                    "3" if name == "quiver" else "")
    if "scoring" in medians:
        f = medians["scoring"]
        row("scoring through the server, 32 at once", f"{f['server']:.1f} requests/s", f"{100 * f['server'] / f['score']:.0f} % of quiver score's", "80 %")
    if "memory" in medians:
        f = medians["memory"]
        taken = f["peak_mib"] - f["cache_mib"] - f["program_mib"]
        row("most memory, without cache and program", f"{taken:.0f} MiB", f"{taken / f['file_mib']:.2f} times the file", "1.3")
    if "stolen" in medians:
        f = medians["stolen"]
        for name in SERVERS:
            if f"{name}_alone" in f:
                row(f"one of two cores taken, {name}", f"{f[f'{name}_beside']:.1f} tokens/s", f"{100 * f[f'{name}_beside'] / f[f'{name}_alone']:.0f} % of the rate alone",
                    "45 %" if name == "quiver" else "")
    if "read" in medians:
        row("read rate, 1 and 2 threads", " ".join(f"{medians['read'][t]:.1f}" for t in "12") + " GB/s", f"{step_bytes / 1e6:.1f} MB a step")
    return rows


def load_lines(load):
    rows = []
    for server, shapes in load.items():
        for shape, loops in shapes.items():
            for loop, s in loops.items():
                first, gap, whole = s["first_ms"], s["gap_ms"], s["end_to_end_ms"]
                rows.append((f"{server}, {shape}, {loop}", f"{s['requests_per_second']:.2f}", f"{s['tokens_out_per_second']:.0f}",
                             *(f"{x.get('p50', 0):.0f} / {x.get('p90', 0):.0f} / {x.get('p99', 0):.0f}" for x in (first, gap, whole)), str(s["failed"])))
    return rows


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiver", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "build/quiver")
    parser.add_argument("--llama-server", type=lambda p: pathlib.Path(p).resolve(), help="program; without it llama.cpp is left out")
    parser.add_argument("--python", default=sys.executable, help="of the environment that has PEFT")
    parser.add_argument("--no-peft", dest="peft", action="store_false")
    parser.add_argument("--peer-dtype", choices=("bf16", "fp32"), help="of PEFT's base; the faster one on this CPU unless given")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=20, help="per multiple-choice set, of 7 sets")
    parser.add_argument("--load-requests", type=int, default=64, help="of a loop with 16 clients or more; fewer with fewer")
    parser.add_argument("--output", type=pathlib.Path, help="NAME: writes NAME.json, every round's figures, and NAME.md, the table")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed")
    about = last_json(call([options.quiver, "bench", "memory", "--mib", "1", "--json"]))["machine"]
    options.peer_dtype = options.peer_dtype or ("bf16" if about["bf16 in hardware"] == "yes" else "fp32")

    rounds, load = [], None
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, pathlib.Path(folder))
        for number in range(options.rounds):
            rounds.append({})
            for part in options.only:
                print(f"round {number + 1} of {options.rounds}: {part}", file=sys.stderr)
                if part != "load":
                    rounds[-1][part] = getattr(bench, part)()
                elif number == 0:
                    load = bench.load()
    medians = {part: {name: statistics.median(r[part][name] for r in rounds) for name in rounds[0][part]} for part in rounds[0]}
    text = table(("what", f"median of {options.rounds}", "compared", "goal"), lines_of(medians, bench.step_bytes))
    if load:
        text += "\n" + table(("load (2 threads)", "requests/s", "tokens/s", "first token, ms: p50 / p90 / p99", "gap, ms", "whole, ms", "failed"), load_lines(load))
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        about |= {"python": platform.python_version()}
        result = {"machine": about, "options": {"rounds": options.rounds, "peer_dtype": options.peer_dtype}, "step_bytes": bench.step_bytes, "medians": medians,
                  "rounds": rounds, "load": load}
        options.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
