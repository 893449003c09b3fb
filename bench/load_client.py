"""A client of /v1/completions for measurements: times of events, closed and open loops. Any OpenAI-compatible server; no packages needed."""

import asyncio
import json
import random
import statistics
import time

READ_LIMIT = 1 << 26


class Answer:
    """When a request was due, and when its events came; seconds of the monotonic clock."""

    def __init__(self, due, tokens_in):
        self.due, self.tokens_in = due, tokens_in
        self.times = []  # of events with text, or of the answer where nothing is streamed
        self.tokens_out = 0
        self.status = 0  # of HTTP; 0 after an error within a stream

    def first(self):
        return self.times[0] - self.due

    def gaps(self):
        return [b - a for a, b in zip(self.times, self.times[1:])]


class Connection:
    """One request after another."""

    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None

    async def ask(self, body, due=None):
        raw = json.dumps(body).encode()
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=READ_LIMIT)
        answer = Answer(time.monotonic() if due is None else due, len(body["prompt"]))
        self.writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        answer.status = int(head.split()[1])
        if "transfer-encoding: chunked" in head:
            await self.read_chunks(answer)
        else:
            text = await self.reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
            answer.times.append(time.monotonic())
            if answer.status == 200:
                answer.tokens_out = json.loads(text)["usage"]["completion_tokens"]
        if "connection: close" in head:
            self.close()
        return answer

    async def read_chunks(self, answer):
        while True:
            size = int(await self.reader.readline(), 16)
            chunk = await self.reader.readexactly(size + 2)
            if size == 0:
                return
            for line in chunk.split(b"\n"):
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event.get("error"):  # of a stream that had begun
                    answer.status = 0
                if event.get("usage"):
                    answer.tokens_out = event["usage"]["completion_tokens"]
                if event.get("choices") and event["choices"][0].get("text"):
                    answer.times.append(time.monotonic())

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def completion(prompt, max_tokens, model="base", **more):
    """A greedy answer of exactly max_tokens; prompt: token ids."""
    return {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}, **more}


async def closed_loop(port, bodies, num_clients):
    """Every client sends its next request when its last one is answered."""
    waiting, answers = list(reversed(bodies)), []

    async def client():
        connection = Connection(port)
        while waiting:
            answers.append(await connection.ask(waiting.pop()))
        connection.close()

    start = time.monotonic()
    await asyncio.gather(*[client() for _ in range(num_clients)])
    return answers, time.monotonic() - start


async def open_loop(port, bodies, requests_per_second, seed=1):
    """Requests come when they come, whether or not others are answered: exponential times between them."""
    draw, answers, due, running = random.Random(seed), [], 0.0, []
    start = time.monotonic()

    async def client(body, at):
        await asyncio.sleep(max(0.0, start + at - time.monotonic()))
        connection = Connection(port)
        answers.append(await connection.ask(body, start + at))
        connection.close()

    for body in bodies:
        running.append(asyncio.create_task(client(body, due)))
        due += draw.expovariate(requests_per_second)
    await asyncio.gather(*running)
    return answers, time.monotonic() - start


def percentiles(values):
    """p50, p90, p99 and the largest, in milliseconds."""
    ordered = sorted(values)
    names = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) for name, share in names.items()} if ordered else {}


def summary(answers, seconds):
    """What a load did."""
    good = [answer for answer in answers if answer.status == 200]
    return {
        "requests": len(answers), "failed": len(answers) - len(good), "seconds": round(seconds, 3),
        "requests_per_second": round(len(good) / seconds, 3),
        "tokens_in_per_second": round(sum(a.tokens_in for a in good) / seconds, 1),
        "tokens_out_per_second": round(sum(a.tokens_out for a in good) / seconds, 1),
        "first_ms": percentiles([a.first() for a in good]),
        "gap_ms": percentiles([gap for a in good for gap in a.gaps()]),
        "end_to_end_ms": percentiles([a.times[-1] - a.due for a in good]),
    }


def decode_rate(answer):
    """Tokens a second after the first one."""
    return (answer.tokens_out - 1) / (answer.times[-1] - answer.times[0])


def median_gap(answer):
    return statistics.median(answer.gaps())
