"""Seeds of the API's fuzz targets, for make_corpus.py."""

import json


def api_body_seeds():
    def body(**members):
        return json.dumps({"model": "m", **members}).encode()

    yield "lm_eval", body(prompt=[[1, 2, 3], [4, 5]], temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    yield "every_field", body(
        prompt=["a", "\u00e9"], n=2, best_of=2, stop=["\n", "<s>"], temperature=0.5, top_p=0.9, top_k=-1, min_p=0.1, repetition_penalty=1.1, frequency_penalty=1,
        presence_penalty=-1, logit_bias={"5": -100, "7": 1.5}, stream=True, stream_options={"include_usage": True}, ignore_eos=True, min_tokens=1,
        stop_token_ids=[3], skip_special_tokens=False, add_special_tokens=True, return_token_ids=True, cache_salt="s", user="u", odd=None, odder=[{}],
        quiver={"top_k": 2, "temperature": 0.5, "adapters": ["a"], "trace": "full", "context_tokens": [0, 1]})
    yield "mixture", body(prompt=None, quiver={"weights": {"a": 0.5, "b": -1}, "trace": True, "context_tokens": 3})
    yield "chat", body(messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "n"},
                                 {"role": "assistant", "content": None, "tool_calls": []}], max_completion_tokens=5, logprobs=True, top_logprobs=2,
                       response_format={"type": "text"}, modalities=["text"], tool_choice="none", continue_final_message=True)
    yield "tokenize", body(prompt="hi", add_special_tokens=False, return_token_strs=True)
    yield "detokenize", body(tokens=[1, 2, 256])
    yield "adapter", body(lora_name="a.b:c", lora_path="/x", load_inplace=True, wait=True)
    yield "surrogate", b'{"model":"\\ud800"}'
    yield "duplicate", b'{"model":"m","model":"m"}'
    yield "deep", b'{"a":' + b"[" * 100
    yield "numbers", b'{"model":"m","prompt":[1e999,-1,18446744073709551616,1.5],"seed":9223372036854775808}'


def stop_matcher_seeds():
    yield "lines", b"\x02\n\n\0User:\0Hello\n\0\nmore\0User: x"
    yield "inside_another", b"\x02bc\0abcd\0xab\0c\0d"
    yield "repeated", b"\x01aaab\0aaaa\0a\0aab"
    yield "none", b"\x00a\0b"
    yield "empty", b"\x01\0abc"


def event_writer_seeds():
    yield "completion", b"\x02\n\n\0Hello\n\nmore"
    yield "chat", b"\x13User\0Hello Us\xe2\x82\xacUser:"
    yield "echo", b"\x3e<s>\0\x82\xac\"\\\x01\xe2\x80"
    yield "ids", b"\x0dz\0abc\xff\xfe"
