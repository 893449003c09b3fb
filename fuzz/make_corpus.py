"""Writes the seed corpora, fuzz/corpus/<name>/: small valid files, and one file per way of being wrong.

    python3 fuzz/make_corpus.py
"""

import ctypes
import ctypes.util
import json
import pathlib
import struct

from api_seeds import api_body_seeds, event_writer_seeds, stop_matcher_seeds
from seed_formats import gguf, gguf_float, gguf_int, gguf_string, safetensors, text
from service_seeds import service_seeds
from tokenizer_seeds import gguf_tokenizer_seeds, marked_seeds, sentencepiece_seeds, tokenizer_paths_seeds, tokenizer_seeds

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "golden"


def u8(begin, end, shape=None):
    return {"dtype": "U8", "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    yield "every_dtype", (GOLDEN / "safetensors" / "every_dtype.safetensors").read_bytes()
    yield "only_metadata", (GOLDEN / "safetensors" / "only_metadata.safetensors").read_bytes()
    yield "nothing", (GOLDEN / "safetensors" / "nothing.safetensors").read_bytes()
    yield "overlap", safetensors({"a": u8(0, 2), "b": u8(1, 3)}, b"123")
    yield "hole", safetensors({"a": u8(0, 2), "b": u8(3, 4)}, b"1234")
    yield "wraps_to_zero", safetensors({"a": u8(0, 0, [2**32, 2**32])})
    yield "zero_times_huge", safetensors({"a": u8(0, 0, [0, 2**62, 2**62])})
    yield "duplicate", safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(u8(0, 1)).encode(),) * 2), b"1")
    yield "huge_header", struct.pack("<Q", 2**64 - 1) + b"{}"
    yield "deep", safetensors(b'{"a":' + b"[" * 2000)


def gguf_seeds():
    every_type = (GOLDEN / "gguf" / "every_type.gguf").read_bytes()
    yield "every_type", every_type
    yield "truncated", every_type[:1500]
    blocks = (GOLDEN / "gguf" / "blocks.gguf").read_bytes()
    yield "blocks", blocks
    yield "blocks_truncated", blocks[:-300]
    yield "overlap", gguf([], [(b"a", [32], 0, 0), (b"b", [256], 12, 32)], bytes(256))
    for kind, size in ((6, 22), (7, 24), (20, 18), (23, 136), (10, 84), (11, 110), (12, 144), (13, 176), (14, 210)):
        values = 32 if size < 32 else 256
        yield f"nan_scales_{kind}", gguf([], [(b"w", [values, 2], kind, 0)], b"\xff" * (2 * size))
    yield "nothing", gguf()
    yield "version_2", gguf([text(b"k") + struct.pack("<IB", 7, 1)], [(b"w", [32, 1], 3, 0)], bytes(20), version=2)
    yield "absurd_array", gguf([text(b"k") + struct.pack("<IIQ", 9, 8, 2**61)])
    yield "nested_array", gguf([text(b"k") + struct.pack("<IIQ", 9, 9, 1)])
    yield "odd_row", gguf([], [(b"w", [33, 2], 2, 0)], bytes(64))
    yield "wraps_to_zero", gguf([], [(b"w", [2**32, 2**32], 0, 0)])
    yield "far_offset", gguf([], [(b"w", [1], 0, 2**64 - 32)])
    yield "big_alignment", gguf([text(b"general.alignment") + struct.pack("<IQ", 10, 2**62)], [(b"w", [1], 0, 0)])


def gguf_lora(kind=b"adapter", alpha=8.0, tensors=None, more=()):
    """A LoRA file of llama.cpp: names, dimensions as the file stores them, and float32 data."""
    values = [gguf_string(b"general.type", kind), gguf_string(b"adapter.type", b"lora"), gguf_string(b"general.architecture", b"llama")]
    values += [gguf_float(b"adapter.lora.alpha", alpha), *more]
    if tensors is None:
        tensors = [(b"blk.0.attn_q.weight.lora_a", [8, 2]), (b"blk.0.attn_q.weight.lora_b", [2, 8])]
    offset, rows = 0, []
    for name, dims in tensors:
        rows.append((name, dims, 0, offset))
        offset += -(-4 * dims[0] * dims[-1] // 32) * 32
    return gguf(values, rows, struct.pack("<f", 0.5) * (offset // 4))


def gguf_lora_seeds():
    yield "plain", gguf_lora()
    yield "embedding", gguf_lora(tensors=[(b"token_embd.weight.lora_a", [2, 8]), (b"token_embd.weight.lora_b", [2, 4])])
    yield "no_alpha", gguf_lora(alpha=0.0)
    yield "infinite_alpha", gguf_lora(alpha=float("inf"))
    yield "a_model", gguf_lora(kind=b"model")
    yield "no_partner", gguf_lora(tensors=[(b"blk.0.attn_q.weight.lora_a", [8, 2])])
    yield "other_rank", gguf_lora(tensors=[(b"blk.0.attn_q.weight.lora_a", [8, 3]), (b"blk.0.attn_q.weight.lora_b", [2, 8])])
    yield "a_norm", gguf_lora(tensors=[(b"blk.0.attn_norm.weight", [8, 1])])
    yield "a_vector", gguf_lora(tensors=[(b"blk.0.attn_q.weight.lora_a", [8]), (b"blk.0.attn_q.weight.lora_b", [2, 8])])
    yield "activated", gguf_lora(more=[text(b"adapter.alora.invocation_tokens") + struct.pack("<IIQI", 9, 4, 1, 7)])


def zstd(data):
    library = ctypes.CDLL(ctypes.util.find_library("zstd"))
    library.ZSTD_compress.restype = ctypes.c_size_t
    library.ZSTD_compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    out = ctypes.create_string_buffer(len(data) + 1000)
    return out.raw[: library.ZSTD_compress(out, len(out), data, len(data), 3)]


def jsonl_seeds():
    """An even first byte: the rest is text; an odd one: a zstd stream."""
    lines = b'{"id": 1, "text": "na\xc3\xafve \\u00e9", "x": [1, -2.5e3, true, null]}\n\n{"id": 2}\r\n"last"'
    yield "lines", b"0" + lines
    yield "lines_zstd", b"1" + zstd(lines * 5)
    yield "two_frames", b"1" + zstd(lines) + zstd(b"\n3\n")
    yield "truncated_zstd", b"1" + zstd(lines * 5)[:-6]
    yield "not_zstd", b"1" + lines
    yield "bad_utf8", b'0"\xff"\n'
    yield "lone_surrogate", b'0"\\ud800"\n'
    yield "deep", b"0" + b"[" * 2000
    yield "zero_byte", b"0{}\0\n"
    yield "overflow", b"0[1e999]\n[18446744073709551616]\n"
    yield "negative_zero", b"0[-0, -0.0, 1e-400, 9007199254740993]\n"


def yaml_seeds():
    for number, row in enumerate(json.loads((GOLDEN / "yaml" / "cases.json").read_text())["documents"]):
        yield f"document_{number}", row["text"].encode()
    yield "scalars", b"- " + b"\n- ".join(row["text"].encode() for row in json.loads((GOLDEN / "yaml" / "cases.json").read_text())["scalars"])
    yield "function", b"a: !function x.y\nb: [!function z]\n"
    yield "laughs", b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"
    yield "deep", b"[" * 2000
    yield "deep_block", b"- " * 2000
    yield "bad_utf8", b"a: \xff\n"
    yield "odd_keys", b'{"a/b~": 1, "": {"": 2}}\n'


def jinja_seeds():
    """A template, and after a zero byte its variables as JSON if there are any."""
    rows = json.loads((GOLDEN / "chat_template" / "constructs.json").read_text())
    groups = {}
    for row in rows:
        groups.setdefault(row["name"].split("/")[0], []).append(row)
    for group, members in groups.items():
        if group == "raises":
            continue
        variables = {}
        for row in members:
            variables |= row["variables"]
        source = "\n".join(row["template"] for row in members if "expected" in row)
        yield group, source.encode() + b"\0" + json.dumps(variables, ensure_ascii=False, separators=(",", ":")).encode()
    for i in range(0, len(groups["raises"]), 12):
        yield f"raises_{i // 12}", "\n".join(row["template"] for row in groups["raises"][i : i + 12]).encode()
    yield "chat", (
        b"{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[{{ m['content'] | trim }}]"
        b"{% elif m.tool_calls %}{{ m.tool_calls | tojson(indent=2) }}{% endif %}{% endfor %}"
        b"{% if add_generation_prompt %}<a>{% endif %}"
    )
    yield "recursion", b"{% macro f(x) %}{{ f([x]) }}{% endmacro %}{{ f(1) }}"
    yield "cycle", b"{% set ns = namespace() %}{% set ns.a = ns %}{% set ns.b = [ns] %}{{ ns.b == ns.b }}{{ ns.a.b | tojson }}"
    yield "growth", b"{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
    yield "nested_loops", b"{% for i in range(99999) %}{% for j in range(99999) if j > i %}{{ loop.length }}{% endfor %}{% endfor %}"
    yield "parentheses", b"{{ " + b"(" * 300 + b"1" + b")" * 300 + b" }}"
    yield "bad_utf8", b"{{ '\xff' }}"


PATTERNS = [
    r".*\.(q|k)_proj", r"\A[]q]\Z", r"(?P<n>a)(?P=n)\1", r"(?i:m)odel(?=\.).*", r"(?<!x)(?<=l)ayers", r"(?>a+)b|(?:c*+){2,3}?", r"[^\W\d_a-z\-]+",
    r"\x41\u00e9\U0001F600\101\0", r"(?ms)^a.$\b\B", r"(?#c)a{,3}{2}", "(" * 101, "(?i)\u00e9", r"(a)?(?(1)b|c)", r"\N{DIGIT ONE}", "a**", "[", r"\\",
    r"(x+x+)+y", r"((((a{9}){9}){9}){9})", "a)|(b",
]


def python_pattern_seeds():
    for i, pattern in enumerate(PATTERNS):
        yield f"pattern_{i}", pattern.encode() + b"\0" + (b"aaxAq\xc3\xa9.1." if i % 2 else b"model.layers.1.q_proj")
    yield "bad_utf8", b"\xff\0\xff"


def peft_config(**changes):
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q_proj"], **changes}
    return json.dumps(config).encode()


def peft_config_seeds():
    for name in ("plain", "patterns", "regex-targets", "one-layer", "dora", "modules-to-save", "lora-bias", "tokens"):
        yield name, (GOLDEN / "peft" / name / "adapter_config.json").read_bytes()
    yield "layers", peft_config(layers_to_transform=[1, 12], layers_pattern="layers")
    yield "layers_patterns", peft_config(layers_to_transform=3, layers_pattern=["experts", r"l(a)\1?yers"])
    yield "tokens_by_name", peft_config(trainable_token_indices={"embed_tokens": [3, 7], "lm_head": 4, "": [2**62]}, ensure_weight_tying=True)
    yield "layers_empty", peft_config(layers_to_transform=[1], layers_pattern="")
    yield "layers_of_expression", peft_config(target_modules=".*", layers_to_transform=[1])
    yield "all_linear", peft_config(target_modules="ALL-linear", exclude_modules=r".*\.\d+\.mlp.*")
    yield "keys", peft_config(rank_pattern={r"\Aq_proj\Z": 2, r"[]q]_proj": 3, "(?P<a>q)(?P=a)?_proj": 4}, alpha_pattern={"a)|(q_proj": 0.5})
    yield "deep_pattern", peft_config(target_modules="(" * 3000 + ")" * 3000)
    yield "slow_pattern", peft_config(alpha_pattern={"(.*.*)*x": 1})
    yield "odd_values", peft_config(r=2**63 - 1, lora_alpha=1e308, lora_dropout=0.5, rank_pattern={"q": 2**64 - 1})
    yield "wrong_types", peft_config(target_modules=[1], rank_pattern=[], layers_to_transform=["a"])
    yield "unknown_key", peft_config(use_new_method=[[[]]])
    yield "init", peft_config(init_lora_weights="pissa")
    yield "no_object", b"[]"
    yield "duplicate", b'{"peft_type":"LORA","r":1,"r":2}'
    yield "bad_utf8", b'{"peft_type":"\xff"}'


def llama_config(**changes):
    config = {"model_type": "llama", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, **changes}
    return json.dumps(config).encode()


def model_config_seeds():
    yield "tiny", (GOLDEN / "model" / "llama-tied" / "config.json").read_bytes()
    yield "plain", llama_config()
    yield "linear", llama_config(rope_scaling={"type": "linear", "factor": 2.0})
    yield "llama3", llama_config(rope_scaling={"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                               "original_max_position_embeddings": 8192})
    yield "llama3_equal_factors", llama_config(rope_scaling={"rope_type": "llama3", "factor": 1e-300, "low_freq_factor": 1, "high_freq_factor": 1,
                                                             "original_max_position_embeddings": 1e300})
    yield "parameters", llama_config(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, head_dim=32)
    yield "huge", llama_config(hidden_size=2**62, num_attention_heads=1)
    yield "no_heads", llama_config(num_attention_heads=0)
    yield "overflow", llama_config(hidden_size=-(2**63), num_attention_heads=-1)
    yield "odd_head", llama_config(head_dim=3)
    yield "other_model", llama_config(model_type="mamba")
    yield "wrong_types", llama_config(rope_scaling=[1], tie_word_embeddings="yes")
    yield "no_object", b"3"
    for case in sorted((GOLDEN / "families").iterdir()):
        for spelling in ("config", "saved") if case.is_dir() else ():
            yield f"{case.name}-{spelling}", (case / f"{spelling}.json").read_bytes()


def llama_gguf(extra=(), **changes):
    sizes = {"embedding_length": 64, "block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2, "feed_forward_length": 96,
             "context_length": 512, **changes}
    values = [gguf_string(b"general.architecture", b"llama"), gguf_float(b"llama.attention.layer_norm_rms_epsilon", 1e-5)]
    values += [gguf_int(b"llama." + key.encode(), value) for key, value in sizes.items()]
    return gguf(values + list(extra), [(b"token_embd.weight", [64, 3], 0, 0)], bytes(64 * 3 * 4))


def gguf_config_seeds():
    """The others are made by scripts/golden/make_gguf_models.py: one of each architecture."""
    yield "plain", llama_gguf([gguf_string(b"general.name", b"tiny")])
    yield "linear", llama_gguf([gguf_string(b"llama.rope.scaling.type", b"linear"), gguf_float(b"llama.rope.scaling.factor", 4)])
    yield "yarn", llama_gguf([gguf_string(b"llama.rope.scaling.type", b"yarn")])
    yield "yarn_factor", llama_gguf([gguf_string(b"llama.rope.scaling.type", b"yarn"), gguf_float(b"llama.rope.scaling.factor", 4)])
    yield "key_length", llama_gguf([gguf_int(b"llama.attention.key_length", 32), gguf_int(b"llama.rope.dimension_count", 32)])
    yield "theta", llama_gguf([gguf_float(b"llama.rope.freq_base", float("nan"))])
    yield "bad_name", llama_gguf([gguf_string(b"general.name", b"\xff")])
    yield "huge", llama_gguf(embedding_length=2**62)
    yield "negative", llama_gguf(**{"attention.head_count": -1, "embedding_length": -(2**63)})
    yield "experts", llama_gguf([gguf_int(b"llama.expert_count", 8)])
    yield "other_architecture", gguf([gguf_string(b"general.architecture", b"mamba")])
    yield "shards", llama_gguf([gguf_int(b"split.count", 2)])


def catalogue(adapters=None, **changes):
    adapters = {"a": {"kind": "private", "tasks": ["t"], "created": "2024-01-01T00:00:00Z", "rank": 4, "sha256": "00",
                      "training": {"losses": [1.5]}}} if adapters is None else adapters
    return json.dumps({"format": "quiver library", "version": 1, "base_model": {"name": "b", "fingerprint": ""}, "adapters": adapters,
                       "groups": {"c0": ["t"]}, **changes}).encode()


def catalogue_seeds():
    yield "plain", catalogue()
    yield "empty", catalogue({})
    yield "provenance", catalogue(groups_provenance={"sparsity": 0.5, "joined": {"t": "c0"}})
    yield "provenance_text", catalogue(groups_provenance="text")
    yield "joined_list", catalogue(groups_provenance={"joined": []})
    yield "training_list", catalogue({"a": {"kind": "poly", "tasks": [], "created": "", "rank": 1, "sha256": "", "training": []}})
    yield "bad_name", catalogue({"../a": {"kind": "private", "tasks": [], "created": "", "rank": 1, "sha256": ""}})
    yield "bad_kind", catalogue({"a": {"kind": "x", "tasks": [], "created": "", "rank": 1, "sha256": ""}})
    yield "missing", catalogue({"a": {}})
    yield "adapter_list", catalogue([])
    yield "groups_of_numbers", catalogue(groups={"c0": [1]})
    yield "version_2", catalogue(version=2)
    yield "another_format", json.dumps({"format": 3}).encode()
    yield "huge_rank", catalogue({"a": {"kind": "shared", "tasks": [], "created": "", "rank": 2**64 - 1, "sha256": ""}})


def mixing(meta, shape, dtype="F32"):
    size = {"F32": 4, "F64": 8, "I64": 8}[dtype]
    for extent in shape:
        size *= extent
    return safetensors({"__metadata__": {"quiver.mixing": meta if isinstance(meta, str) else json.dumps(meta)},
                        "logits": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}, bytes(size))


def checkpoint(steps=2, losses=None, validations=((1, 0.5), (2, 0.25)), drop=(), best=True, seconds=1.5, num_values=5, dtype="F32", extra=()):
    """That of a trainer of `num_values` parameters."""
    width = {"F32": 4, "BF16": 2, "F64": 8}[dtype]
    moments = (dtype, [num_values], bytes(width * num_values))
    losses = [0.75] * steps if losses is None else losses
    tensors = {"values": moments, "first": moments, "second": moments, "steps": ("I64", [1], struct.pack("<q", steps)),
               "losses": ("F64", [len(losses)], struct.pack(f"<{len(losses)}d", *losses)),
               "counters": ("I64", [3], struct.pack("<3q", steps, 100, 80)), "seconds": ("F64", [1], struct.pack("<d", seconds)),
               "validations": ("F64", [len(validations), 2], b"".join(struct.pack("<2d", *v) for v in validations)), **dict(extra)}
    if best:
        tensors["best_values"] = moments
    header, data = {"__metadata__": {"quiver.checkpoint": "1", "quiver.key": "key"}}, b""
    for name, (kind, shape, raw) in tensors.items():
        if name in drop:
            continue
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return safetensors(header, data)


def checkpoint_seeds():
    yield "plain", checkpoint()
    yield "no_validation", checkpoint(validations=(), best=False)
    yield "new", checkpoint(steps=0, validations=(), best=False)
    yield "bf16", checkpoint(dtype="BF16")
    yield "other_size", checkpoint(num_values=4)
    yield "no_losses", checkpoint(drop=("losses",))
    yield "fewer_losses", checkpoint(losses=[1.0])
    yield "too_far", checkpoint(steps=5)
    yield "before_the_first", checkpoint(steps=-1, losses=[])
    yield "validation_of_a_later_step", checkpoint(validations=((3, 0.5),))
    yield "validation_not_a_number", checkpoint(validations=((float("nan"), 0.5),))
    yield "loss_not_a_number", checkpoint(validations=((1, float("nan")), (2, float("nan"))))
    yield "seconds_not_a_number", checkpoint(seconds=float("nan"))
    yield "best_without_validation", checkpoint(validations=())
    yield "one_more", checkpoint(extra=[("third", ("U8", [1], b"x"))])


def mixing_seeds():
    meta = {"tasks": ["a", "b"], "skills": [{"name": "poly-0", "sha256": "00"}], "rule": "sigmoid", "granularity": "model", "heads": 1}
    yield "plain", mixing(meta, [2, 1, 1, 1])
    yield "double", mixing(meta, [2, 3, 1, 1], "F64")
    yield "integers", mixing(meta, [2, 1, 1, 1], "I64")
    yield "other_tasks", mixing(meta, [3, 1, 1, 1])
    yield "flat", mixing(meta, [2])
    yield "no_tasks", mixing({**meta, "tasks": []}, [0, 1, 1, 1])
    yield "heads", mixing({**meta, "heads": -1}, [2, 1, 1, 1])
    yield "skills_of_text", mixing({**meta, "skills": ["poly-0"]}, [2, 1, 1, 1])
    yield "bad_json", mixing("{", [2, 1, 1, 1])
    yield "no_metadata", safetensors({"logits": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    yield "no_logits", safetensors({"__metadata__": {"quiver.mixing": json.dumps(meta)}})


def artifact_seeds():
    yield "plain", json.dumps({"sha256": "00", "meta": {"what": "prototypes", "deep": [[1.5]]}}).encode()
    yield "null", json.dumps({"sha256": "00", "meta": None}).encode()
    yield "no_meta", json.dumps({"sha256": "00"}).encode()
    yield "number", json.dumps({"sha256": 3, "meta": 1}).encode()
    yield "list", b"[]"
    yield "deep", b'{"sha256":"0","meta":' + b"[" * 600
    yield "bad_utf8", b'{"sha256":"\xff","meta":1}'


def results(**parts):
    return json.dumps({"quiver_results": 1, **parts}).encode()


def results_seeds():
    names = {"section": "choice", "method": "base", "metric": "accuracy"}
    parts = {
        "created": "2024", "base": {"name": "m", "fingerprint": "f", "dtype": "float32", "parameters": 7}, "machine": {"cpu": "x", "cores": 2},
        "settings": {"seed": 1, "list": [1, [2]]}, "tasks": [{"name": "t", "kind": "choice", "num_samples": 3, "group": "c0"}],
        "methods": [{"name": "base"}, {"name": "private-oracle", "oracle": True}, {"name": "arrow", "label": "<b>"}],
        "metrics": [{"name": "accuracy", "better": "higher", "unit": "%"}, {"name": "rouge_l", "better": "higher"}],
        "summary": [{**names, "mean": 0.5, "stderr": 0.1, "n": 3}, {**names, "method": "arrow", "mean": 0.75, "n": 3, "recovered": 0.5,
                    "difference": {"mean": 0.25, "low": 0.1, "high": 0.4}}, {**names, "method": "private-oracle", "mean": 1}],
        "per_task": [{"task": "t", "method": "base", "metric": "accuracy", "mean": 0.5, "n": 3}, {"task": "t", "method": "arrow", "metric": "accuracy", "mean": 1}],
        "training": [{"adapter": "a", "kind": "private", "steps": [1, 2, 3], "loss": [3, 2.5, None], "tokens": 9, "seconds": 1}],
        "clusters": {"adapters": ["a", "b"], "labels": [0, 1], "similarity": [[1, 0.5], [0.5, 1]]},
        "routing": [{"library": "l", "method": "arrow", "adapters": ["a", "b"], "task": "t", "layers": [{"layer": "0", "share": [0.25, 0.75]}]}],
        "samples": [{"task": "t", "id": 1, "method": "base", "input": "\u00e9", "prediction": "<p>", "targets": ["x"], "accuracy": 0.5}],
    }
    yield "everything", results(**parts)
    for name in ("summary", "per_task", "training", "clusters", "routing", "samples"):
        yield name, results(**{name: parts[name]})
    yield "nothing", results()
    yield "version_2", b'{"quiver_results":2}'
    huge = {"mean": 1e308, "low": -1e308, "high": 1e308}
    yield "huge_numbers", results(summary=[{**names, "mean": 1e308, "stderr": 1e308, "n": 2**62, "difference": huge},
                                           {**names, "method": "arrow", "mean": -1e308, "difference": huge}],
                                  training=[{"adapter": "a", "steps": [-1e308, 1e308], "loss": [-1e308, 1e308], "seconds": 1e-308}])
    yield "same_names", results(tasks=[{"name": "t"}] * 2, methods=[{"name": "base"}] * 2, metrics=[{"name": "m"}] * 2, summary=[parts["summary"][0]] * 3)
    yield "no_adapters", results(clusters={"adapters": [], "labels": []}, routing=[{"library": "l", "adapters": [], "task": "t", "layers": [{"layer": "0", "share": []}]}])
    yield "empty_curve", results(training=[{"adapter": "a", "steps": [], "loss": []}, {"adapter": "b", "steps": [None], "loss": [None]}])
    yield "wrong_types", results(summary=[3], tasks="x", base=[])


def http_seeds():
    """The first byte is the most bytes of a piece, 0 for any number; 0xFE ends a piece."""

    def request(line, *headers, body=b""):
        return b"\r\n".join([line + b" HTTP/1.1", b"Host: a", *headers, b"", b""]) + body

    get, chunked = request(b"GET /"), b"Transfer-Encoding: chunked"
    post = request(b"POST /x?a=%20+b&c", b"Content-Length: 5", body=b"hello")
    yield "get", b"\0" + get
    yield "bytes", b"\1" + post + get
    yield "pipelined", b"\0" + get + post + request(b"GET /late") + get + request(b"HEAD /stream") + request(b"HEAD /") + get
    yield "pieces", b"\0" + request(b"GET /late")[:20] + b"\xfe" + request(b"GET /late")[20:] + b"\xfe" + get + b"\xfe"
    yield "chunked", b"\7" + request(b"POST /stream", chunked, body=b"3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\n") + get
    yield "too_many_chunks", b"\0" + request(b"POST /", chunked, body=b"20\r\n" + b"x" * 32 + b"\r\n21\r\n" + b"x" * 33)
    yield "chunk_overflow", b"\0" + request(b"POST /", chunked, body=b"1\r\na\r\nFFFFFFFFFFFFFFFF\r\nb")
    yield "negative_chunk", b"\0" + request(b"POST /", chunked, body=b"-2\r\nab\r\n")
    yield "too_long", b"\0" + request(b"POST /", b"Content-Length: 65")
    yield "continue", b"\0" + request(b"POST /", b"Content-Length: 2", b"Expect: 100-continue") + b"\xfeab" + get
    yield "refused", b"\0" + request(b"GET /refused") + request(b"POST /refused", b"Content-Length: 2")
    yield "dropped", b"\0" + request(b"GET /dropped")
    yield "cut", b"\0" + request(b"GET /cut")
    yield "none", b"\0" + request(b"GET /none") + get
    yield "http_1_0", b"\0GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    yield "close", b"\0" + request(b"GET /", b"Connection: close") + get
    yield "two_lengths", b"\0" + request(b"POST /", b"Content-Length: 2", chunked, body=b"0\r\n\r\n")
    yield "gzip", b"\0" + request(b"POST /", b"Transfer-Encoding: gzip")
    yield "folded", b"\0" + request(b"GET /", b"X: a\r\n b\r\n\tc")
    yield "many_headers", b"\0" + request(b"GET /", *[b"a: b"] * 101)
    yield "bad_path", b"\0" + request(b"GET /%00")
    yield "http_2", b"\0PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "tls", b"\0\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield "empty_lines", b"\0\r\n\r\n" + post + b"\r\n" + post


def tensors_file(tensors, **metadata):
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    return safetensors(header, data)


def main():
    for name, seeds in (
        ("safetensors", safetensors_seeds),
        ("gguf", gguf_seeds),
        ("gguf_lora", gguf_lora_seeds),
        ("jsonl", jsonl_seeds),
        ("yaml", yaml_seeds),
        ("tokenizer", tokenizer_seeds),
        ("tokenizer", marked_seeds),
        ("tokenizer_paths", tokenizer_paths_seeds),
        ("sentencepiece", sentencepiece_seeds),
        ("gguf_tokenizer", gguf_tokenizer_seeds),
        ("jinja", jinja_seeds),
        ("python_pattern", python_pattern_seeds),
        ("peft_config", peft_config_seeds),
        ("model_config", model_config_seeds),
        ("gguf_config", gguf_config_seeds),
        ("catalogue", catalogue_seeds),
        ("mixing", mixing_seeds),
        ("checkpoint", checkpoint_seeds),
        ("artifact", artifact_seeds),
        ("results", results_seeds),
        ("api_body", api_body_seeds),
        ("stop_matcher", stop_matcher_seeds),
        ("event_writer", event_writer_seeds),
        ("http", http_seeds),
        ("service", service_seeds),
    ):
        folder = HERE / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed, data in seeds():
            (folder / seed).write_bytes(data)


if __name__ == "__main__":
    main()
