#!/usr/bin/env python3
"""A day of requests in minutes: short requests to a tiny model, 5 % of whose clients go away and 5 % of which are invalid, while adapters come and go.

    python3 tests/serve/soak.py [--requests 100000] [--clients 16] [--seed 1]

Prints the figures as JSON, and fails where memory, descriptors, pages or counters say that something is left behind. Needs no packages.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time

from serve_support import ROOT, TINY, Server, make_tasks, train_library, wait_until  # noqa: F401

MODELS = ("base", "alpha", "beta", "arrow", "lag", "mean", "lag-base")
WORDS = ("text", "answer", "review", "positive", "archer", "read", "twice", "negative", "é", "猫")
INVALID = (b'{"model":', b'{"model":"base","prompt":[-1]}', b'{"model":"nobody","prompt":"a"}', b'{"model":"base","prompt":"a","tools":[{}]}',
           b'{"model":"base","prompt":"a","max_tokens":100000}')


class Soak:
    def __init__(self, server, folders, num_requests, num_clients, seed):
        self.server, self.folders, self.num_requests = server, folders, num_requests
        self.draw = random.Random(seed)
        self.num_clients = num_clients
        self.latencies = []  # of whole answers, in their order
        self.statuses = {}
        self.sent = self.gone = self.changes = 0
        self.samples = []  # (requests, resident KiB, descriptors)
        self.is_over = False

    def body(self):
        draw = self.draw
        prompt = " ".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 24)))
        body = {"model": draw.choice(MODELS), "prompt": prompt, "max_tokens": draw.randrange(1, 5), "stream": draw.random() < 0.5, "seed": draw.randrange(100)}
        if draw.random() < 0.2:
            body |= {"echo": True, "logprobs": 2}
            if body["model"] == "lag-base":
                body["model"] = "lag"
        if draw.random() < 0.1:
            body |= {"n": 2, "stop": ["te", "x"]}
        return json.dumps(body).encode()

    async def request(self, reader, writer, raw, path="/v1/completions", key=None):
        """The status of an answer that is read to its end."""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
        if key:
            head += f"Authorization: Bearer {key}\r\n"
        writer.write(head.encode() + b"\r\n" + raw)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(answer.split()[1])
        if "transfer-encoding: chunked" in answer:
            while (size := int(await reader.readline(), 16)) > 0:
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        else:
            await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
        return status

    async def client(self):
        reader = writer = None
        while self.sent < self.num_requests:
            self.sent += 1
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            kind = self.draw.random()
            if kind < 0.05:  # goes before the answer has come
                raw = self.body()
                writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode())
                writer.write(raw[:self.draw.randrange(len(raw) + 1)] if self.draw.random() < 0.3 else raw)
                await writer.drain()
                await asyncio.sleep(self.draw.random() * 0.01)
                writer.close()
                writer = None
                self.gone += 1
                continue
            start = time.monotonic()
            status = await self.request(reader, writer, self.draw.choice(INVALID) if kind < 0.1 else self.body())
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 200:
                self.latencies.append(time.monotonic() - start)
        if writer is not None:
            writer.close()

    async def change_adapters(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        while not self.is_over:
            for path, body in [("/v1/load_lora_adapter", {"lora_name": "guest", "lora_path": self.draw.choice(self.folders), "load_inplace": True}),
                               ("/v1/unload_lora_adapter", {"lora_name": "guest"})]:
                status = await self.request(reader, writer, json.dumps(body).encode(), path, "admin")
                if status != 200:
                    raise AssertionError(f"{path}: {status}")
                self.changes += 1
                await asyncio.sleep(0.5)
        writer.close()

    async def sample(self):
        process = self.server.process.pid
        while not self.is_over:
            resident = int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            self.samples.append((self.sent, resident, len(os.listdir(f"/proc/{process}/fd"))))
            await asyncio.sleep(0.2)

    async def run(self):
        others = [asyncio.create_task(self.change_adapters()), asyncio.create_task(self.sample())]
        await asyncio.gather(*[self.client() for _ in range(self.num_clients)])
        self.is_over = True
        await asyncio.gather(*others)

    def figures(self, seconds):
        """What is left behind; wait_idle has been called."""
        metrics = self.server.metrics()
        half = self.samples[len(self.samples) // 2:]
        slope = statistics.linear_regression([s[0] for s in half], [s[1] for s in half]).slope * 10000 / half[0][1] if len(half) > 2 else 0.0
        tenth = len(self.latencies) // 10

        def p99(values):
            return sorted(values)[int(0.99 * (len(values) - 1))]
        counted = sum(value for name, value in metrics.items() if name.startswith("quiver_requests_total"))
        return {
            "requests": self.sent, "seconds": round(seconds, 1), "requests_per_second": round(self.sent / seconds, 1), "statuses": self.statuses,
            "clients_gone": self.gone, "adapter_changes": self.changes,
            "resident_mib": {"first": self.samples[0][1] // 1024, "half": half[0][1] // 1024, "last": self.samples[-1][1] // 1024},
            "resident_slope_percent_per_10000_requests": round(100 * slope, 2),
            "descriptors": {"first": self.samples[0][2], "last": len(os.listdir(f"/proc/{self.server.process.pid}/fd"))},
            "pages": {state: int(metrics[f'quiver_kv_pages{{state="{state}"}}']) for state in ("used", "cached", "free")},
            "answers_counted": int(counted), "cancelled_counted": int(metrics.get('quiver_cancelled_total{reason="client_gone"}', 0)),
            "p99_seconds": {"second_tenth": round(p99(self.latencies[tenth:2 * tenth]), 4), "last_tenth": round(p99(self.latencies[-tenth:]), 4)},
        }


def faults(figures, pages, num_clients):
    """Sentences about what is not as it must be."""
    statuses = figures["statuses"]
    found = []

    def expect(claim, what):
        if not claim:
            found.append(what)
    expect(set(statuses) <= {200, 400, 404}, "an answer is neither right nor a refusal")
    expect(figures["pages"]["used"] == 0 and sum(figures["pages"].values()) == pages, "pages of the cache are lost")
    expect(figures["descriptors"]["last"] <= figures["descriptors"]["first"] + 2, "descriptors are left open")
    finished = figures["answers_counted"] - figures["cancelled_counted"]
    # Who goes may have had a whole answer; requests that are refused before they are scheduled are not counted.
    expect(statuses.get(200, 0) <= finished <= statuses.get(200, 0) + figures["clients_gone"], "counters do not add up")
    if figures["requests"] >= 20000:
        expect(figures["resident_slope_percent_per_10000_requests"] < 1, "memory grows")
    return found


def soak(num_requests, num_clients, seed):
    """Figures, and faults."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="quiver-soak-"))
    try:
        data = make_tasks(folder / "data", ("alpha", "beta", "gamma", "delta"))
        library = train_library(folder / "library", data)
        guests = [str(library / "adapters" / name) for name in ("gamma", "delta")]
        # 3200 rows of the tiny model: 200 pages.
        with Server("--library", library, "--dtype", "float32", "--admin-key", "admin", "--kv-memory", 2) as server:
            for model in MODELS:
                server.texts(model, "a", 1)
            pages = int(sum(value for name, value in server.metrics().items() if name.startswith("quiver_kv_pages")))
            before = sum(value for name, value in server.metrics().items() if name.startswith("quiver_requests_total"))
            one = Soak(server, guests, num_requests, num_clients, seed)
            start = time.monotonic()
            asyncio.run(one.run())
            seconds = time.monotonic() - start
            server.wait_idle()
            wait_until(lambda: server.metrics()["quiver_connections"] <= 1, "no connections")
            figures = one.figures(seconds)
            figures["answers_counted"] -= int(before)
        return figures, faults(figures, pages, num_clients)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    figures, found = soak(args.requests, args.clients, args.seed)
    print(json.dumps(figures, indent=1))
    for fault in found:
        print(f"soak: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
