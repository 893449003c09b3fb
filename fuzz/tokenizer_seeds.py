"""Seeds of the targets that read tokenizers and encode with them."""

import json
import struct

from seed_formats import gguf, gguf_array, text


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


def marked(text=b"", **changes):
    """A tokenizer.json of SentencePiece's kind with few bytes to fall back to, members changed or added, a zero byte, and a text."""
    tokens = ["<unk>", "<0xC3>", "<0xA9>", "\u2581", "a", "b", "\u2581a", "ab"]
    model = {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [["\u2581", "a"], ["a", "b"]],
             "byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>", **changes.pop("model", {})}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    members = {"model": model, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace]}}
    members["decoder"] = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip_of(" ", 1, 0)]}
    return json.dumps({**members, **changes}, separators=(",", ":"), ensure_ascii=False).encode() + b"\0" + text


def strip_of(content, start, stop):
    return {"type": "Strip", "content": content, "start": start, "stop": stop}


def marked_seeds():
    """Seeds of the target tokenizer, for the components that SentencePiece's kind has."""
    words = "ab  a\u2581b éa\u65e5é \xfc<unk> <0xC3>\n".encode()
    yield "marked", marked(words)
    yield "marked_bytes", marked(words, model={"fuse_unk": False, "unk_token": None})
    for scheme in ("first", "always", "never"):
        space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": scheme != "first"}
        yield f"metaspace_{scheme}", marked(words, normalizer=None, pre_tokenizer=space, decoder=space)
    yield "metaspace_old", marked(words, pre_tokenizer={"type": "Metaspace", "replacement": "_", "add_prefix_space": True})
    yield "strips", marked(words, normalizer={"type": "Strip", "strip_left": True, "strip_right": True}, decoder={
        "type": "Sequence", "decoders": [{"type": "ByteFallback"}, strip_of("a", 1, 1), {"type": "ByteLevel"}, strip_of("b", 2, 3)]})
    yield "marked_added", marked(words, added_tokens=[added("\u2581a", 6, normalized=True), added("b", 5, rstrip=True), added("b a", 8)])
    yield "growth", marked(b"aaaa", normalizer={"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"}] * 6})


def sentencepiece_seeds():
    """Bytes of fuzz/sentencepiece.h: options, characters with a token, byte tokens and merges; pairs; the text."""
    everything = bytes(range(8)) * 12
    yield "merges", bytes([1 | 4 | 16, 0x1F, 0x60 | 0xF, 9, 8, 10, 10, 8, 9, 13, 9, 14, 14, 8, 8]) + everything
    yield "scores", bytes([1 | 2 | 4 | 8, 0x3F, 0x70, 2, 0, 0, 1, 2, 2, 6, 7, 3, 4, 0, 0, 8, 9]) + everything
    yield "pending_unk", bytes([1 | 4 | 16, 0x03, 0x00]) + b"\3\4\3\4\0\3\3"
    yield "fused_unk", bytes([1 | 2 | 4 | 16, 0x03, 0x00]) + b"\3\4\3\4\0\3\3"
    yield "dropped", bytes([0, 0x05, 0x20, 1, 2, 2, 1]) + everything
    yield "run", bytes([8, 0x07, 0xF0, *([0, 0] * 15)]) + b"\0" * 190
    yield "marks", bytes([12, 0x07, 0xF0, 2, 2, 3, 3, 2, 0, 0, 1, 4, 1, *([2, 2] * 10)]) + b"\2\2\2\0\1\2\0\1\2\2" * 9
    yield "text", "the \u2581\u2581 th\xe9a\u0301\U0001f999 \n\n  aaaa".encode() + b"\xff\xe2\x96"


def gguf_tokenizer_seeds():
    key = lambda name, value: text(f"tokenizer.ggml.{name}".encode()) + value  # noqa: E731
    word = lambda value: struct.pack("<I", 8) + text(value.encode())  # noqa: E731
    flag = lambda value: struct.pack("<IB", 7, value)  # noqa: E731
    number = lambda value: struct.pack("<II", 4, value)  # noqa: E731
    spm = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "\u2581", "a", "b", "\u2581a", "ab", "[PAD]", "<|end|>"]
    types = [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 2, 4]
    scores = [0, 0, 0, 0, 0, -5, -6, -7, -1, -1, 0, 0]
    base = [key("model", word("llama")), key("tokens", gguf_array(8, spm)), key("token_type", gguf_array(5, types))]
    yield "scores", gguf([*base, key("scores", gguf_array(6, scores))])
    yield "no_prefix", gguf([*base, key("scores", gguf_array(6, scores)), key("add_space_prefix", flag(0)), key("unknown_token_id", number(4))])
    yield "far_unknown", gguf([*base, key("scores", gguf_array(6, scores)), key("unknown_token_id", number(5000)), key("bos_token_id", number(3))])
    yield "phi3", gguf([text(b"general.architecture") + word("phi3"), *base, key("scores", gguf_array(6, scores))])
    yield "few_scores", gguf([*base, key("scores", gguf_array(6, scores[:3]))])
    yield "nan", gguf([*base, key("scores", gguf_array(6, [float("nan"), *scores[1:]]))])
    yield "equal_scores", gguf([*base, key("scores", gguf_array(6, [0] * 12)), key("bos_token_id", number(11)), key("add_eos_token", flag(1))])
    merges = gguf_array(8, ["\u2581 a", "a b"])
    yield "gemma4", gguf([key("model", word("gemma4")), key("tokens", gguf_array(8, [*spm, "\n", "\n\n"])),
                          key("token_type", gguf_array(5, [*types, 1, 1])), key("merges", merges)])
    letters = ["a", "b", "ab", "\u0120", "1", "A"]
    for pre in ("gpt-2", "gpt-4o", "tekken", "default", "nobody"):
        yield pre, gguf([key("model", word("gpt2")), key("pre", word(pre)), key("tokens", gguf_array(8, letters)), key("merges", gguf_array(8, ["a b"]))])
