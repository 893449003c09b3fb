"""Seeds of the service's fuzz target, for make_corpus.py."""

import json


def request(first_line, body=None, key=1, most_writes=0, headers=()):
    lines = [first_line, *headers, "", "" if body is None else json.dumps(body)]
    return bytes([key + 4 * most_writes]) + "\n".join(lines).encode()


def service_seeds():
    for path in ("/health", "/ready", "/metrics", "/v1/models", "/v1/models/red", "/tokenizer_info", "/v1/quiver/library", "/v1/quiver/status", "/", "/none"):
        yield "get" + path.replace("/", "_"), request("GET " + path)
    yield "no_key", request("GET /v1/models", key=0)
    yield "other_host", request("GET /v1/models", headers=["host: evil"])
    yield "other_origin", request("GET /v1/models", headers=["origin: http://evil"])
    yield "other_method", request("DELETE /v1/models")
    yield "not_json", request("POST /tokenize", {"prompt": "a"}, headers=["content-type: text/plain"])
    yield "completion", request("POST /v1/completions", {"model": "tiny", "prompt": ["the", "a\u00e9"], "max_tokens": 8, "n": 2, "logprobs": 2, "echo": True,
                                                         "seed": 1, "stop": ["a", "\n"]})
    yield "token_ids", request("POST /v1/completions", {"model": "red", "prompt": [[1, 2, 3], [4]], "max_tokens": 3, "return_token_ids": True})
    yield "stream", request("POST /v1/completions", {"model": "arrow", "prompt": "the the", "max_tokens": 12, "stream": True, "ignore_eos": True,
                                                     "stream_options": {"include_usage": True}, "quiver": {"trace": True, "top_k": 2}})
    yield "short_stream", request("POST /v1/completions", {"model": "tiny", "prompt": "a", "stream": True})
    yield "stream_of_two", request("POST /v1/completions", {"model": "tiny", "prompt": ["a", "the"], "max_tokens": 6, "n": 2, "stream": True, "echo": True, "logprobs": 1,
                                                            "return_token_ids": True})
    yield "stream_of_one_that_is_loaded", request("POST /v1/completions", {"model": "slow", "prompt": "a", "max_tokens": 3, "stream": True, "stop": "b"})
    yield "cut_stream", request("POST /v1/completions", {"model": "blue", "prompt": "a", "max_tokens": 30, "stream": True, "ignore_eos": True, "n": 3}, most_writes=4)
    yield "scores", request("POST /v1/completions", {"model": "pooled", "prompt": [[1, 2, 3]], "max_tokens": 0, "echo": True, "logprobs": 1,
                                                     "quiver": {"context_tokens": 2}})
    yield "too_long", request("POST /v1/completions", {"model": "tiny", "prompt": "a b c d e f g h i j k l m n o p q r s t u v w x y z", "max_tokens": 40})
    yield "unknown_model", request("POST /v1/completions", {"model": "gpt-4", "prompt": "a"})
    yield "slow_model", request("POST /v1/completions", {"model": "slow", "prompt": "a", "max_tokens": 1})
    yield "chat", request("POST /v1/chat/completions", {"model": "red", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 5,
                                                        "logprobs": True, "top_logprobs": 3})
    yield "chat_stream", request("POST /v1/chat/completions", {"model": "red", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "stream": True})
    yield "tokenize", request("POST /tokenize", {"prompt": "the\u20ac", "return_token_strs": True})
    yield "detokenize", request("POST /detokenize", {"tokens": [1, 256, 2]})
    yield "load", request("POST /v1/load_lora_adapter", {"lora_name": "green", "lora_path": "/x"}, key=2)
    yield "load_by_another", request("POST /v1/load_lora_adapter", {"lora_name": "green", "lora_path": "/x"})
    yield "unload", request("POST /v1/unload_lora_adapter", {"lora_name": "red", "wait": True}, key=2)
    yield "route", request("POST /v1/quiver/route", {"model": "arrow", "prompt": "the"})
