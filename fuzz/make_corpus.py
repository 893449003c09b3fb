"""Writes the seed corpora, fuzz/corpus/<name>/: small valid files, and one file per way of being wrong.

    python3 fuzz/make_corpus.py
"""

import ctypes
import ctypes.util
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "golden"


def safetensors(header, data=b""):
    if not isinstance(header, bytes):
        header = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(header)) + header + data


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


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf(values=(), tensors=(), data=b"", version=3):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join(values)
    for name, dims, kind, offset in tensors:
        head += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    return head + bytes(-len(head) % 32) + data


def gguf_seeds():
    every_type = (GOLDEN / "gguf" / "every_type.gguf").read_bytes()
    yield "every_type", every_type
    yield "truncated", every_type[:1500]
    yield "nothing", gguf()
    yield "version_2", gguf([text(b"k") + struct.pack("<IB", 7, 1)], [(b"w", [32, 1], 3, 0)], bytes(20), version=2)
    yield "absurd_array", gguf([text(b"k") + struct.pack("<IIQ", 9, 8, 2**61)])
    yield "nested_array", gguf([text(b"k") + struct.pack("<IIQ", 9, 9, 1)])
    yield "odd_row", gguf([], [(b"w", [33, 2], 2, 0)], bytes(64))
    yield "wraps_to_zero", gguf([], [(b"w", [2**32, 2**32], 0, 0)])
    yield "far_offset", gguf([], [(b"w", [1], 0, 2**64 - 32)])
    yield "big_alignment", gguf([text(b"general.alignment") + struct.pack("<IQ", 10, 2**62)], [(b"w", [1], 0, 0)])


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


def tokenizer(text=b"", **changes):
    """A tokenizer.json of three tokens, with members changed or added, a zero byte, and a text to encode."""
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], **changes.pop("model", {})}
    members = {"model": model, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}
    members |= {"decoder": {"type": "ByteLevel"}, **changes}
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode() + b"\0" + text


def split_by(regex, **options):
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False, **options}
    return {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "add_prefix_space": True}]}


def added(content, number, **options):
    return {"id": number, "content": content, "special": False, "normalized": False, **options}


def tokenizer_seeds():
    """A tokenizer.json up to the first zero byte, then a text."""
    words = "abba the\n\n a<s> aaaaaa\u2003\u0301é😀".encode()
    yield "plain", tokenizer(words)
    yield "text_only", b"{}\0" + words * 3
    yield "bad_utf8", b"{}\0a\xff\xe2\x82b\xed\xa0\x80\xf0\x9f"
    yield "unk", tokenizer(words, model={"unk_token": "b", "fuse_unk": True})
    yield "ignore_merges", tokenizer(words, model={"ignore_merges": True, "merges": [["a", "b"]]})
    yield "normalizers", tokenizer(
        words, normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "NFD"}]}
    )
    yield "llama3_split", tokenizer(
        words, pre_tokenizer=split_by(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}]+[\r\n]*|\s+(?!\S)|\s+")
    )
    yield "empty_matches", tokenizer(words, pre_tokenizer=split_by("a*", behavior="MergedWithNext", invert=True))
    yield "odd_syntax", tokenizer(words, pre_tokenizer=split_by(r"[^\S\n\-a-z\x{e9}]|^$|(?<=a)b{1,2}?|\u00e9++|(?>a|ab)"))
    yield "added_tokens", tokenizer(
        words,
        added_tokens=[
            added("<s>", 3, lstrip=True, rstrip=True),
            added("the", 4, single_word=True, normalized=True, special=True),
        ],
    )
    yield "template", tokenizer(
        words,
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"a": {"id": "a", "ids": [0], "tokens": ["a"]}},
        },
    )
    yield "huge_id", tokenizer(words, model={"vocab": {"a": 2**31 - 1}, "merges": []})
    yield "missing_token", tokenizer(words, model={"merges": ["a a"]})


def tokenizer_paths_seeds():
    def case(options, letters, merges, piece):  # fuzz/tokenizer_paths.h
        return bytes([options, letters - 1 + 6 * len(merges), *sum(merges, ())]) + piece

    chain = [(0, 0), (2, 2), (3, 3), (4, 4)]  # aa, aaaa, ...
    yield "no_merges", case(0, 3, [], b"abcabc")
    yield "chain", case(0, 2, chain, b"\0" * 150)
    yield "crossing", case(0, 3, [(1, 2), (0, 1), (0, 0), (3, 0)], b"\0\1\2" * 40)
    yield "twice", case(0, 2, [(0, 1), (1, 0), (0, 1)], b"\0\1\0\1\1\0")
    yield "two_ways", case(0, 3, [(0, 1), (1, 2), (3, 2), (0, 4)], b"\0\1\2\0\1\2")
    yield "unk", case(1, 2, chain, b"\0\7\7\0\7")
    yield "fused_unk", case(3, 2, chain, b"\0\7\7\7\0")
    yield "dropped", case(0, 2, chain, b"\0\7\0\7\0")
    yield "ignore_merges", case(4, 2, chain, b"\0" * 8)


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


def main():
    for name, seeds in (
        ("safetensors", safetensors_seeds),
        ("gguf", gguf_seeds),
        ("jsonl", jsonl_seeds),
        ("tokenizer", tokenizer_seeds),
        ("tokenizer_paths", tokenizer_paths_seeds),
        ("jinja", jinja_seeds),
    ):
        folder = HERE / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed, data in seeds():
            (folder / seed).write_bytes(data)


if __name__ == "__main__":
    main()
