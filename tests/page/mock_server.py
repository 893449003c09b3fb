"""A server that answers as `quiver serve` does, from canned texts: for work on the page and for its tests. Standard library only.

    python tests/page/mock_server.py [PORT]

Words of a prompt choose what happens: see `Handler.stream`. docs/serving-page.md describes every answer.
"""

import base64
import functools
import hashlib
import http.server
import json
import math
import pathlib
import random
import re
import select
import socket
import sys
import threading
import time

WEB = pathlib.Path(__file__).resolve().parents[2] / "quiver/serve/web"
CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; "
       "frame-ancestors 'none'; base-uri 'none'")
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
BASE, LAYERS, TOP_K = "SmolLM2-135M-Instruct", 30, 4
PROJECTIONS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
GROUPS = {
    "c0": ["task071_abductivenli_answer_generation", "task105_story_cloze-rocstories_sentence_generation", "task111_asset_sentence_simplification",
           "task223_quartz_explanation_generation", "task582_naturalquestion_answer_generation", "task593_sciq_explanation_generation",
           "task618_amazonreview_summary_text_generation", "task934_turk_simplification"],
    "c1": ["task1336_peixian_equity_evaluation_corpus_gender_classifier", "task195_sentiment140_classification", "task515_senteval_odd_word_out"],
    "c2": ["task1339_peixian_equity_evaluation_corpus_text_completion", "task141_odd-man-out_classification_category",
           "task142_odd-man-out_classification_no_category", "task512_twitter_emotion_classification", "task581_socialiqa_question_generation",
           "task591_sciq_answer_generation", "task592_sciq_incorrect_answer_generation"],
    "c3": ["task340_winomt_classification_gender_pro", "task350_winomt_classification_gender_identifiability_pro"],
    "c4": ["task363_sst2_polarity_classification"],
    "c5": ["task589_amazonfood_summary_text_generation", "task927_yelp_negative_to_positive_style_transfer",
           "task928_yelp_positive_to_negative_style_transfer"],
}
GROUP_OF = {task: group for group, tasks in GROUPS.items() for task in tasks}
PRIVATE = sorted(GROUP_OF)
CLUSTER = [f"cluster-{group}" for group in GROUPS]
METHODS = [
    ("lag", "token", "Arrow's shortlist, then the one adapter with the largest |V x|"),
    ("arrow", "token", "the top k of |prototype . x|, weighted by their softmax"),
    ("cluster-lag", "token", "LAG over the adapters of the clusters"),
    ("lag-base", "prompt", "LAG where a prompt looks like a task of the library, the base alone where it does not"),
    ("mean", "once", "factors averaged, each on its own"),
    ("ties", "once", "largest entries of the factors, signs elected, those that agree averaged"),
]
ANSWERS = [
    "The review is negative. The food was cold, which is a complaint about the meal itself, and a kind waiter does not make up for it. "
    "On balance the writer would probably not come back, although the service is praised.",
    "The word that does not belong is hammer.\n\nApple, pear and plum are fruits that grow on trees. A hammer is a tool.",
    "The committee has decided to delay the start of the meeting.\n\nThree changes were made:\n"
    "1. \"Reached a determination\" became \"decided\".\n2. \"Postpone\" became \"delay\".\n3. \"Commencement\" became \"start\".",
]
HOSTILE = ("<img src=x onerror=alert(1)> <script>document.title='broken'</script> &amp; </span></div> \u202eRTL override\u202c "
           "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u05e9\u05dc\u05d5\u05dd " + "W" * 400 +
           " \U0001f44b\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301\u0323\u0302 \u0000\u0007 javascript:alert(1) 'quotes' \"double\"\n\n\tend")
HOSTILE_NAMES = ["<img src=x onerror=alert(1)>", "\"><script>alert(1)</script>", "a" * 300, "\u0645\u0631\u062d\u0628\u0627", "constructor", "__proto__"]


def split_tokens(text):
    return re.findall(r"\n+|[ ]?[^\W\d_]+|[ ]?\d|[ ]?[^\w\s]|\s|\w", text)


def seed_of(*parts):
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")


@functools.lru_cache(20000)
def route_of(text, index, num_adapters):
    """By layer [[adapter, weight], ...] of one token: a topic that lasts some tokens, surer in the upper layers."""
    favourites = random.Random(seed_of("answer", num_adapters)).sample(range(num_adapters), min(5, num_adapters))
    topic = random.Random(seed_of("topic", index // 9, num_adapters))
    themes = topic.sample(favourites, min(3, len(favourites)))
    draw = random.Random(seed_of("token", text, index))
    routes = []
    for layer in range(LAYERS):
        height = layer / (LAYERS - 1)
        sharpness = 1.1 + 2.2 * height + draw.random()
        favourite = themes[0] if draw.random() < 0.3 + 0.45 * height else draw.choice(themes + favourites + [draw.randrange(num_adapters)])
        first = draw.randrange(num_adapters)
        chosen = [favourite] + [n % num_adapters for n in range(first, first + TOP_K) if n % num_adapters != favourite][:min(TOP_K, num_adapters) - 1]
        weights = [math.exp(sharpness * 0.5)] + sorted((math.exp(-sharpness * 0.4 * i * draw.random()) for i in range(1, len(chosen))), reverse=True)
        routes.append([[n, w / sum(weights)] for n, w in zip(chosen, weights)])
    return routes


def favourites(text, index, adapters, id_bytes):
    data = bytearray()
    for choices in route_of(text, index % 99, len(adapters)):
        data += choices[0][0].to_bytes(id_bytes, "little") + bytes([round(255 * choices[0][1])])
    return bytes(data)


def trace_document(text, adapters, method):
    tokens = split_tokens(text)
    routes = {name: [route_of(token + name, i, len(adapters)) for i, token in enumerate(tokens)] for name in PROJECTIONS}
    projections = [{"path": f"model.layers.{layer}.{name}", "choices": [token[layer] for token in routes[name]]}
                   for layer in range(LAYERS) for name in PROJECTIONS]
    shares = [0.0] * len(adapters)
    for projection in projections:
        for choices in projection["choices"]:
            for n, weight in choices:
                shares[n] += weight / (len(projections) * len(tokens))
    return {"quiver_trace": 1, "base": BASE, "method": method, "options": {}, "what": "private adapters", "combine": "params", "adapters": adapters,
            "tokens": [{"id": i, "text": token} for i, token in enumerate(tokens)], "projections": projections,
            "statistics": {"entropy": 1.1034, "largest_entropy": math.log(TOP_K), "margin": 0.287, "agreement": 0.412, "shares": shares}}


def similarity():
    draw = random.Random(3)
    angles = {name: [draw.gauss(0, 1) for _ in range(6)] for name in [*PRIVATE, *GROUPS]}
    vectors = {name: [a + 1.4 * g + 4.2 for a, g in zip(angles[name], angles[GROUP_OF[name]])] for name in PRIVATE}
    norm = {name: math.sqrt(sum(x * x for x in vector)) for name, vector in vectors.items()}
    values = [[round(sum(x * y for x, y in zip(vectors[a], vectors[b])) / norm[a] / norm[b], 4) for b in PRIVATE] for a in PRIVATE]
    return {"names": PRIVATE, "values": values}


class MockServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.lock = threading.Lock()
        self.requests = []        # (method, path, body)
        self.cancelled = 0        # streams whose reader has gone
        self.running = 0
        self.token_delay = 0.012  # seconds between tokens
        self.api_key = ""
        self.admin_key = "secret"
        self.hostile_names = False
        self.removed, self.added = set(), []
        self.errors = [{"time": time.time() - 340, "status": 400, "request": "req-5f1c",
                        "message": "prompt and max_tokens are 2311 tokens; this model's maximum context length is 2048 tokens"}]
        self.start = time.time()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def serve(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)

    def adapters_of(self, method):
        if method == "many":
            return [f"adapter{n:03}" for n in range(300)]
        if method == "cluster-lag":
            return CLUSTER
        return (HOSTILE_NAMES if self.hostile_names else []) + [n for n in PRIVATE if n not in self.removed] + self.added

    def models(self):
        def entry(name, kind, **ours):
            return {"id": name, "object": "model", "created": int(self.start), "owned_by": "quiver", "root": BASE, "parent": None if kind == "base" else BASE,
                    "max_model_len": 2048, "quiver": {"kind": kind, **ours}}

        data = [entry(BASE, "base", method=None, adapters=0, decides=None)]
        data += [entry(name, "method", method=name, adapters=len(self.adapters_of(name)), decides=decides) for name, decides, _ in METHODS]
        data.append(entry("many", "method", method="many", adapters=300, decides="token"))
        data.append(entry("default", "alias", method="lag", adapters=len(PRIVATE), decides="token"))
        data += [entry(name, "adapter", method=None, adapters=1, decides="once") for name in [*CLUSTER, *self.adapters_of("lag")]]
        return {"object": "list", "data": data}

    def library(self):
        draw = random.Random(11)
        names = [*CLUSTER, *self.adapters_of("lag")]
        adapters = []
        for name in names:
            group = GROUP_OF.get(name) or (name.removeprefix("cluster-") if name in CLUSTER else None)
            adapters.append({"name": name, "kind": "cluster" if name in CLUSTER else "private", "tasks": GROUPS[group] if name in CLUSTER else [name],
                             "rank": 4, "bytes": 1843200 + 4096 * draw.randrange(9), "sha256": hashlib.sha256(name.encode()).hexdigest(), "group": group,
                             "requests": int(draw.paretovariate(0.8))})
        return {"base": BASE, "methods": [{"name": name, "family": family, "what": what} for name, family, what in METHODS], "adapters": adapters,
                "groups": GROUPS, "similarity": similarity()}

    def status(self):
        t = time.time() - self.start
        wave = 0.5 + 0.5 * math.sin(t / 7)
        speed = max(0.0, 180 * wave + 25 * math.sin(2.3 * t)) if self.running else 12 * wave
        return {"version": "0.1", "base": BASE, "uptime_seconds": t + 7260, "is_ready": True, "batch_invariant": True, "connections": 3 + self.running,
                "running": self.running + int(3 * wave), "waiting": 0, "pages": {"used": 180 + int(60 * wave), "cached": 1460, "free": 1240, "rows": 16},
                "cache": {"hit_tokens": 90210 + int(40 * t), "prompt_tokens": 143020 + int(61 * t)},
                "tokens_per_second": {"prompt": 4.3 * speed, "generated": speed}, "requests": {"finished": 2381, "failed": len(self.errors), "cancelled": 17 + self.cancelled},
                "adapters": [{"name": a["name"], "bytes": a["bytes"], "requests": a["requests"], "is_ready": True} for a in self.library()["adapters"]],
                "errors": self.errors}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, content_type="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", "req-7a20")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message, code=None):
        self.server.errors.insert(0, {"time": time.time(), "status": status, "message": message, "request": "req-7a20"})
        del self.server.errors[20:]
        self.answer(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})

    def is_allowed(self, key):
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self.refuse(401, "the API key is missing or wrong", "invalid_api_key")
            return False
        return True

    def do_GET(self):
        path = self.path.split("?")[0]
        with self.server.lock:
            self.server.requests.append(("GET", path, None))
        file = WEB / ("index.html" if path == "/" else path.removeprefix("/"))
        if file.parent == WEB and file.suffix in TYPES and file.is_file():
            return self.answer(200, file.read_bytes(), TYPES[file.suffix], [
                ("Content-Security-Policy", CSP), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-cache")])
        if not self.is_allowed(self.server.api_key):
            return None
        answers = {"/v1/models": self.server.models, "/v1/quiver/library": self.server.library, "/v1/quiver/status": self.server.status}
        if path in answers:
            return self.answer(200, answers[path]())
        return self.refuse(404, f"there is nothing at {path}")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(("POST", self.path, body))
        if self.path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            return self.change(body) if self.is_allowed(self.server.admin_key) else None
        if not self.is_allowed(self.server.api_key):
            return None
        known = {model["id"]: model["quiver"] for model in self.server.models()["data"]}
        if body.get("model") not in known:
            return self.refuse(404, f"there is no model '{body.get('model')}'; this server has {', '.join(list(known)[:5])}", "model_not_found")
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        if self.path == "/v1/quiver/route":
            text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in body["messages"]) if "messages" in body else prompt
            return self.answer(200, trace_document(text, self.server.adapters_of(body["model"]), body["model"]))
        if "refuse" in prompt:
            return self.refuse(429, "64 requests are waiting; try again in 3 seconds", "queue_full")
        with self.server.lock:
            self.server.running += 1
        try:
            self.stream(body, prompt, known[body["model"]])
        except (BrokenPipeError, ConnectionResetError):
            with self.server.lock:
                self.server.cancelled += 1
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.running -= 1
        return None

    def change(self, body):
        name, is_load = body["lora_name"], self.path.startswith("/v1/load")
        if is_load and not body["lora_path"].startswith("adapters/"):
            return self.refuse(403, f"'{body['lora_path']}' is in none of the folders of this server", "forbidden")
        if is_load:
            self.server.added.append(name)
        else:
            self.server.removed.add(name)
            self.server.added[:] = [other for other in self.server.added if other != name]
        return self.answer(200, {"message": f"{'added' if is_load else 'removed'} '{name}'"})

    def write_chunk(self, data, pieces=1):
        # A reader that has gone is noticed before the next write.
        if select.select([self.connection], [], [], 0)[0] and self.connection.recv(1, socket.MSG_PEEK) == b"":
            raise BrokenPipeError
        size = max(1, math.ceil(len(data) / pieces))
        for at in range(0, len(data), size):
            part = data[at:at + size]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
            if pieces > 1:
                time.sleep(0.0005)

    def stream(self, body, prompt, model):
        """hostile: markup, right-to-left text and worse; long N: N tokens; slow: 0.15 s a token; fail: an error after 5 tokens; cut: the
        connection ends after 5 tokens; pieces: pings, and events cut at odd places; emoji: a character of three tokens; broken: routes that
        are none; known: routes of known bytes."""
        is_chat, server = "messages" in body, self.server
        adapters = server.adapters_of(body["model"])
        number = re.search(r"long (\d+)", prompt)
        base = ANSWERS[seed_of(body["model"] if "odd" in prompt else "", prompt) % len(ANSWERS)]
        if "review" in prompt:
            base = ANSWERS[0]
        elif "belong" in prompt:
            base = ANSWERS[1]
        elif "Simplify" in prompt:
            base = ANSWERS[2]
        tokens = split_tokens(HOSTILE if "hostile" in prompt else base)
        if number:
            tokens = (tokens + ["\n\n"]) * math.ceil(int(number[1]) / (len(tokens) + 1))
            tokens = tokens[:int(number[1])]
        tokens = tokens[:body.get("max_tokens", 1024)]
        is_traced = body.get("quiver", {}).get("trace") == "layers" and model["decides"] in ("token", "prompt")
        id_bytes = 2 if len(adapters) > 255 else 1
        delay = 0.15 if "slow" in prompt else 0.0 if number else server.token_delay * (1.7 if body["model"] == "arrow" else 1)
        self.send_response(200)
        for name, value in (("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"), ("Transfer-Encoding", "chunked"), ("x-request-id", "req-7a20")):
            self.send_header(name, value)
        self.end_headers()
        pieces = 7 if "pieces" in prompt else 1

        def send(choice, ours=None, **more):
            chunk = {"id": "cmpl-1", "object": "chat.completion.chunk" if is_chat else "text_completion", "created": 0, "model": body["model"],
                     "choices": [choice] if choice else [], "usage": None, **more}
            if ours:
                chunk["choices"][0]["quiver"] = ours
            comment = ": ping\n\n" if pieces > 1 else ""
            line_end = "\r\n" if pieces > 1 else "\n"
            self.write_chunk(f"{comment}data: {json.dumps(chunk, ensure_ascii=pieces == 1)}{line_end}{line_end}".encode(), pieces)

        def choice(text, finish=None):
            return {"index": 0, **({"delta": {"content": text}} if is_chat else {"text": text}), "finish_reason": finish}

        time.sleep(0.06)
        ours = {"seed": body.get("seed", 1234)}
        if is_traced:
            ours["route_header"] = {"adapters": adapters, "layers": LAYERS, "projections": LAYERS * len(PROJECTIONS), "ids": "u16" if id_bytes == 2 else "u8"}
        send({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None} if is_chat else choice(""), ours)
        index = 0
        for at, token in enumerate(tokens):
            if "fail" in prompt and at == 5:
                self.write_chunk(b'data: {"error": {"message": "the engine has failed: this is a bug", "type": "server_error", "param": null, "code": "internal_error"}}\n\n')
                break
            if "cut" in prompt and at == 5:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            texts = ["", "", "\U0001f642"] if "emoji" in prompt and at == 2 else [token]
            route = None
            if is_traced:
                data = b"".join(favourites(text, index + i, adapters, id_bytes) for i, text in enumerate(texts))
                if "known" in prompt:
                    data = b"".join(bytes([(index + layer) % 3 if layer else 255, 255 - layer]) for layer in range(LAYERS))
                if "broken" in prompt:
                    data = data[:-1]
                route = {"route": {"t0": index, "k": 1, "data": base64.b64encode(data).decode(), **({"texts": texts} if len(texts) > 1 else {})}}
            send(choice("".join(texts)), route)
            index += len(texts)
            if delay:
                time.sleep(delay * (0.5 + random.random()))
        else:
            send(choice("", "length" if len(tokens) == body.get("max_tokens") else "stop"))
            prompt_tokens = 40 + len(prompt.split())
            send(None, usage={"prompt_tokens": prompt_tokens, "completion_tokens": index, "total_tokens": prompt_tokens + index,
                              "prompt_tokens_details": {"cached_tokens": min(32, prompt_tokens)}})
            self.write_chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")


if __name__ == "__main__":
    mock = MockServer(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    print(mock.url, flush=True)
    mock.serve_forever()
