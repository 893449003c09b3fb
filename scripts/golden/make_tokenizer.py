"""Golden tokenizers, ids, splits, normal forms and character classes. Writes tests/golden/tokenizer/.

Run:  python scripts/golden/make_tokenizer.py [--data DIR]      (tokenizers 0.23.3)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import unicodedata
from pathlib import Path

import random_text
from common import DATA, GOLDEN, load_jsonl_zst, save_json, smollm2_path, versions
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = GOLDEN / "tokenizer"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TASKS = ["train/*.jsonl.zst", "heldout_*/*.jsonl.zst"]


def data_texts(folder: Path, every: int = 1, limit: int | None = None) -> list[str]:
    """Every string of every `every`-th row, files and keys in sorted order."""

    def strings(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            for child in value:
                yield from strings(child)
        elif isinstance(value, dict):
            for key in sorted(value):
                yield from strings(value[key])

    out = []
    for pattern in TASKS:
        for path in sorted(folder.glob(pattern)):
            for row in load_jsonl_zst(path)[::every]:
                out.extend(strings(row))
                if limit is not None and len(out) >= limit:
                    return out[:limit]
    return out


def smollm2() -> Tokenizer:
    """The tokenizer of SmolLM2 as it was published, from the vocabulary and merges of the GGUF file."""
    from gguf import GGUFReader

    reader = GGUFReader(str(smollm2_path()))
    field = lambda key: reader.fields[key].contents()  # noqa: E731
    tokens, merges = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.merges")
    types = field("tokenizer.ggml.token_type")
    model = models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges])
    out = Tokenizer(model)
    out.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    out.decoder = decoders.ByteLevel()
    out.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
    return out


def train(tokenizer: Tokenizer, corpus: list[str], vocab_size: int, special: list[str], alphabet=None) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet is None else alphabet,
        show_progress=False,
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def gpt2(corpus: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return train(tokenizer, corpus, 1500, ["<|endoftext|>"])


def llama3(corpus: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    train(tokenizer, corpus, 1500, [])
    # Whole words that no sequence of merges makes, so that ignore_merges is seen to matter.
    inside = json.loads(tokenizer.to_str())
    vocab = inside["model"]["vocab"]
    for word in ["Ġthrough", "Ġbetween", "Hypothesis", "...", "ĠĠĠĠĠ"]:
        vocab.setdefault(word, len(vocab))
    tokenizer = Tokenizer.from_str(json.dumps(inside))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B", special_tokens=[("<|begin_of_text|>", bos)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def smollm(corpus: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return train(tokenizer, corpus, 1500, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def odd(corpus: list[str]) -> Tokenizer:
    """Everything that is rare: an unk token for missing bytes, every option of added tokens, several normal forms."""
    alphabet = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if c not in "QĀāĂðŁ~"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("the", "merged_with_next"),
            pre_tokenizers.Split(Regex(r"[\p{P}\p{S}]+"), "merged_with_previous"),
            pre_tokenizers.Split(Regex(r"\s+(?=\S)"), "contiguous"),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.ByteLevel(add_prefix_space=True),
        ]
    )
    ascii_corpus = [text.lower() for text in corpus if text.isascii() and not set(text) & set("~\0\1\2")]
    train(tokenizer, ascii_corpus, 900, ["<unk>"], alphabet)
    tokenizer.add_tokens(
        [
            AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("<w>", single_word=True, normalized=False),
            AddedToken("<ww>", single_word=True, lstrip=True, normalized=True),
            AddedToken("[PAD]", rstrip=True, normalized=True),
            AddedToken("Question", normalized=True),
            AddedToken("É", normalized=True, single_word=True),
            AddedToken("ﬁ", normalized=False),
            AddedToken("日本", normalized=False),
            AddedToken("<|im_start|>", normalized=False),
            AddedToken("<|im_start|>user", normalized=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False, lstrip=True), "<|endoftext|>"])
    return tokenizer


def save_jsonl_zst(path: Path, rows: list) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    subprocess.run(["zstd", "-q", "-19", "-f", "-o", str(path)], input=text.encode("utf-8"), check=True)


def ids_of(tokenizer: Tokenizer, text: str, special: bool = False) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=special).ids


def write_ids(tokenizers: dict[str, Tokenizer], texts: list[str]) -> None:
    rows = []
    for text in texts:
        row = {"text": text}
        for name, tokenizer in tokenizers.items():
            ids = ids_of(tokenizer, text)
            row[name] = ids
            decoded = tokenizer.decode(ids, skip_special_tokens=False)
            if decoded != text:
                row[f"{name}.decoded"] = decoded
            if any(tokenizer.get_added_tokens_decoder().get(i) and tokenizer.get_added_tokens_decoder()[i].special for i in ids):
                row[f"{name}.plain"] = tokenizer.decode(ids, skip_special_tokens=True)
            if (with_special := ids_of(tokenizer, text, True)) != ids:
                row[f"{name}.special"] = with_special
        rows.append(row)
    save_jsonl_zst(OUT / "ids.jsonl.zst", rows)


PATTERNS = [
    r"\s", r"\s+", r"\d", r"\p{L}+", r"[^\s\p{L}\p{N}]+", r"\s+(?!\S)|\s+", r"\S+", r"[\S]", r"(?<=\s)\S", r"x*", r"$", r"^",
    r"(?i:'s|'t)", r"[a-z\-]+", r"[-a]", r"[a-]", r"[\]\[]", r".", r".+?\n", r"a|ab", r"(?>a+)b?", r"\p{N}{1,3}", r"\P{L}+",
    r"\p{^L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[\p{Lu}\p{Lt}]+[\p{Ll}\p{M}]*", r"\x{41}|\u0042|\x43", r"\p{Han}+",
    r"[!-/:-~]+", r"\D+", r" {2,}", r"a{,2}", r"\A\S", r"\s++", r"[一-龥]",
]
BEHAVIORS = ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]


def write_splits(texts: list[str]) -> None:
    rows = []
    for index, pattern in enumerate(PATTERNS):
        for behavior in BEHAVIORS:
            for invert in [False, True]:
                split = pre_tokenizers.Split(Regex(pattern), behavior, invert)
                some = texts[index::23][:12]
                pieces = [[piece for piece, _ in split.pre_tokenize_str(text)] for text in some]
                rows.append({"split": json.loads(split.__getstate__()), "texts": some, "pieces": pieces})
    for literal in ["the", " ", "'", "a.b", "^"]:
        for behavior in BEHAVIORS:
            split = pre_tokenizers.Split(literal, behavior)
            some = [f"{literal}x{literal}{literal} y{text}{literal}" for text in texts[:8]]
            pieces = [[piece for piece, _ in split.pre_tokenize_str(text)] for text in some]
            rows.append({"split": json.loads(split.__getstate__()), "texts": some, "pieces": pieces})
    save_jsonl_zst(OUT / "splits.jsonl.zst", rows)


def write_classes() -> None:
    """The characters that each class matches, as [first, last, first, last, ...]."""
    code_points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

    def flat_ranges(members: set[int]) -> list[int]:
        out: list[int] = []
        for c in sorted(members):
            if out and out[-1] == c - 1:
                out[-1] = c
            else:
                out += [c, c]
        return out

    out = {}
    names = "L M N P S Z Lu Ll Lt Lm Lo Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Han Hiragana Katakana Hangul"
    for pattern in [r"\s", r"\S", r"\d", r"[\S]", r".", *(rf"\p{{{name}}}" for name in names.split())]:
        split = pre_tokenizers.Split(Regex(pattern), "removed")
        kept: set[int] = set()
        for start in range(0, len(code_points), 4096):
            chunk = "".join(map(chr, code_points[start : start + 4096]))
            kept.update(ord(c) for piece, _ in split.pre_tokenize_str(chunk) for c in piece)
        out[pattern] = flat_ranges(set(code_points) - kept)
    digits = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str("aa".join(map(chr, code_points)))
    out["digits"] = flat_ranges({ord(piece) for piece, _ in digits if len(piece) == 1})
    bare = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.add_tokens([AddedToken("<w>", single_word=True, normalized=False)])
    out["word"] = flat_ranges({c for c in code_points if 256 not in ids_of(bare, chr(c) + "<w>")})
    save_jsonl_zst(OUT / "classes.jsonl.zst", [{"pattern": k, "ranges": v} for k, v in out.items()])


def write_normal_forms(texts: list[str]) -> None:
    """Rows of text and forms, where a form that leaves the text alone is left out."""
    forms = {name: getattr(normalizers, name)() for name in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase"]}
    changes = {form.normalize_str for form in forms.values()}
    singles, marks = [], []
    for c in map(chr, [*range(0x80, 0xD800), *range(0xE000, 0x110000)]):
        if unicodedata.category(c).startswith(("M", "Cn")) and "\u0300" <= c < "\U00030000":
            marks.append(c)  # what Unicode 14 does not know may be a mark in a later version
        elif any(change(c) != c for change in changes) or unicodedata.normalize("NFKD", c) != c:
            if not "\uac00" <= c <= "\ud7a3" or ord(c) % 29 == 0:  # Hangul syllables are all alike
                singles.append(c)
    marks = [c for i, c in enumerate(marks) if unicodedata.category(c) != "Cn" or ord(c) < 0x3000 or i % 16 == 0]
    rows = []
    # Each character alone; marks between marks of other combining classes, which shows their own.
    makers = [(singles, lambda c: c)]
    makers += [(marks, m) for m in (lambda c: f"a\u0334{c}\u0301", lambda c: f"a\u0301{c}\u0316", lambda c: f"\u0f71{c}\u093c")]
    for characters, make in makers:
        for start in range(0, len(characters), 512):
            text = "\n".join(map(make, characters[start : start + 512]))
            row = {name: form.normalize_str(text) for name, form in forms.items()}
            rows.append({"text": text, **{name: value for name, value in row.items() if value != text}})
    for text in [*texts, "\U00011935\U00011930", "\U000105D2\u0307", "\u1100\u1161\u11a8\u11a8"]:
        row = {name: form.normalize_str(text) for name, form in forms.items()}
        rows.append({"text": text, **{name: value for name, value in row.items() if value != text}})
    save_jsonl_zst(OUT / "normal_forms.jsonl.zst", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    corpus = data_texts(args.data, every=97, limit=1500)
    texts = random_text.texts(1, 2000) + [text[:2000] for text in data_texts(args.data, every=131)[::17][:300]]
    made = {"gpt2": gpt2(corpus), "llama3": llama3(corpus), "smollm": smollm(corpus), "odd": odd(corpus)}
    for name, tokenizer in made.items():
        save_json(OUT / f"{name}.json", json.loads(tokenizer.to_str()), indent=None)
    # What is written is what is used: reading a file back can order tokens in another way.
    made = {name: Tokenizer.from_file(str(OUT / f"{name}.json")) for name in made}
    write_ids(made, texts)
    write_splits(texts)
    write_classes()
    write_normal_forms(random_text.texts(2, 500))
    real = smollm2()
    save_jsonl_zst(OUT / "smollm2_ids.jsonl.zst", [{"text": t, "smollm2": ids_of(real, t)} for t in texts[:700] + texts[-300:]])
    print(versions("tokenizers", "gguf"))


if __name__ == "__main__":
    main()
