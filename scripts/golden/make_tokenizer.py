"""Golden tokenizers, ids, splits, normal forms and character classes. Writes tests/golden/tokenizer/.

Run:  python scripts/golden/make_tokenizer.py [--data DIR] [--only components]      (tokenizers 0.23.3)
"""

from __future__ import annotations

import argparse
import json
import random
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


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
MARK = "\u2581"
PIECES = ["a", "b", "e", "h", "t", "é", "日", "'", "1", "2", MARK, MARK + "a", MARK + "b", "ab", MARK + "ab", "th", "the", MARK + "the",
          MARK * 2, MARK * 4, "\n", "\n\n", "aa", "12", "é日", "b" + MARK]
MERGES = [(MARK, MARK), ("t", "h"), ("th", "e"), ("a", "b"), (MARK, "a"), (MARK, "the"), (MARK, "ab"), (MARK, "b"), ("\n", "\n"), ("a", "a"),
          (MARK * 2, MARK * 2), ("1", "2"), ("é", "日"), (MARK + "a", "b")]


def marked_model(bytes_=BYTES, merges=MERGES, **options) -> models.BPE:
    """A vocabulary as SentencePiece has it."""
    options = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>", **options}
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *PIECES]
    return models.BPE({token: i for i, token in enumerate(tokens)}, list(merges), **options)


def legacy_normalizer(*before):
    return normalizers.Sequence([*before, normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])


def legacy_decoder(*after):
    return decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *after])


def components() -> dict[str, Tokenizer]:
    """A tiny tokenizer for every component of a tokenizer of SentencePiece's kind."""
    out: dict[str, Tokenizer] = {}

    def add(name, model=None, normalizer=None, pre_tokenizer=None, decoder=None, tokens=(), special=("<s>", "</s>")):
        tokenizer = Tokenizer(marked_model() if model is None else model)
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        if pre_tokenizer is not None:
            tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = legacy_decoder(decoders.Strip(" ", 1, 0)) if decoder is None else decoder
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
        tokenizer.add_tokens(list(tokens))
        if special:
            tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
        out[name] = tokenizer

    odd_tokens = [
        AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<r>", rstrip=True, normalized=False),
        AddedToken("<w>", single_word=True, normalized=False), AddedToken("<n>", normalized=True),
        AddedToken("b a", normalized=True), AddedToken(MARK * 3, normalized=False), AddedToken("the", normalized=True, single_word=True),
    ]
    few = [byte for byte in BYTES if not "<0xC0>" <= byte < "<0xE0>"]  # characters of two bytes have no tokens
    add("legacy", normalizer=legacy_normalizer())
    add("legacy_added", normalizer=legacy_normalizer(), tokens=odd_tokens)
    add("legacy_nfkc", normalizer=legacy_normalizer(normalizers.NFKC()))
    add("replace_alone", normalizer=normalizers.Replace(" ", MARK), pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
        decoder=legacy_decoder(), tokens=odd_tokens)
    add("replace_twice", normalizer=normalizers.Sequence([normalizers.Replace("aa", "b"), normalizers.Replace("bb", "the ")]))
    add("nothing", decoder=decoders.Fuse())
    for left, right in [(True, False), (False, True), (True, True)]:
        add(f"strip_{left}_{right}", normalizer=legacy_normalizer(normalizers.Strip(left, right)), tokens=odd_tokens)
    for scheme in ["always", "first", "never"]:
        for split in [True, False]:
            add(f"metaspace_{scheme}_{split}", pre_tokenizer=pre_tokenizers.Metaspace(MARK, prepend_scheme=scheme, split=split),
                decoder=decoders.Metaspace(MARK, prepend_scheme=scheme, split=split), tokens=odd_tokens)
        add(f"metaspace_{scheme}_after_split", decoder=decoders.Metaspace(MARK, prepend_scheme=scheme), pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{N}+"), "isolated"), pre_tokenizers.Metaspace(MARK, prepend_scheme=scheme)]))
    add("metaspace_other_mark", pre_tokenizer=pre_tokenizers.Metaspace("b"), decoder=decoders.Metaspace("b"))
    add("digits", pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Metaspace(MARK), pre_tokenizers.Digits(True)]))
    for fuse in [True, False]:
        add(f"few_bytes_fuse_{fuse}", marked_model(few, fuse_unk=fuse), legacy_normalizer())
        add(f"no_bytes_fuse_{fuse}", marked_model([], fuse_unk=fuse), legacy_normalizer())
        add(f"no_fallback_fuse_{fuse}", marked_model(byte_fallback=False, fuse_unk=fuse), legacy_normalizer())
        add(f"few_bytes_no_unk_{fuse}", marked_model(few, unk_token=None, fuse_unk=fuse), legacy_normalizer())
    add("no_unk_no_fallback", marked_model(byte_fallback=False, unk_token=None), legacy_normalizer())
    add("ignore_merges", marked_model(merges=MERGES[:3], ignore_merges=True), pre_tokenizer=pre_tokenizers.Metaspace(MARK))
    add("merges_of_bytes", marked_model(merges=[*MERGES, ("b", MARK)]), legacy_normalizer())
    add("strip_ends", normalizer=legacy_normalizer(), decoder=legacy_decoder(decoders.Strip(" ", 2, 1), decoders.Strip("a", 1, 2)))
    add("strip_tokens", normalizer=legacy_normalizer(), decoder=decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.Strip(" ", 1, 0), decoders.ByteFallback(), decoders.Strip("b", 1, 0)]))
    add("bytes_first", normalizer=legacy_normalizer(), decoder=decoders.Sequence(
        [decoders.ByteFallback(), decoders.Replace(MARK, "_"), decoders.Metaspace("a", prepend_scheme="always"), decoders.Fuse()]))
    add("metaspace_first", normalizer=legacy_normalizer(), decoder=decoders.Sequence(
        [decoders.Metaspace(MARK, prepend_scheme="first"), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    add("byte_level_strip", models.BPE({**{c: i for i, c in enumerate(letters)}, "<s>": 256, "</s>": 257}, [], byte_fallback=True),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True), decoder=decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)]))
    return out


def component_texts(rng: random.Random, count: int) -> list[str]:
    units = ["a", "b", "e", "the", " ", "  ", "\n", "1", "12", "é", "日", "日本", "ü", "🦙", "'", MARK, MARK * 2, "<s>", "</s>", "<l>", "<r>", "<w>",
             "<n>", "b a", "<0x41>", "<unk>", "\t", "\u00a0", "\u0301", "\0", "x", "aa", "bb", "ab"]
    fixed = ["", " ", "a", " a", "  a", "<s>a", "<s> a", "a</s> a", "a</s>a", "é日é", "ü日üa", "a b ", " <n> ", "b a", "ab " * 30, "日" * 40]
    return fixed + ["".join(rng.choice(units) for _ in range(rng.randint(1, 12))) for _ in range(count - len(fixed))]


def component_ids(rng: random.Random, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Ids as no text gives them: half of them byte tokens, of which many make no character."""
    size = tokenizer.get_vocab_size()
    byte_ids = [i for i in map(tokenizer.token_to_id, BYTES) if i is not None] or list(range(size))
    likely = [i for i in map(tokenizer.token_to_id, ["<0xC3>", "<0xA9>", "<0xE6>", "<0x97>", "<0xA5>", "<0x61>", MARK, "a", MARK + "a", "b", "<s>"]) if i is not None]
    draw = [lambda: rng.choice(byte_ids), lambda: rng.choice(likely or byte_ids), lambda: rng.randrange(size)]
    return [[rng.choice(draw)() for _ in range(rng.randint(0, 9))] for _ in range(count)]


def write_components() -> None:
    rows = []
    for name, tokenizer in components().items():
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        rng = random.Random(name)
        texts = [[text, ids_of(tokenizer, text), ids_of(tokenizer, text, True)] for text in component_texts(rng, 150)]
        lists = [ids for _, _, ids in texts[::3]] + component_ids(rng, tokenizer, 150)
        decoded = []
        for ids in lists:
            try:
                decoded.append([ids, *(tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True))])
            except BaseException as error:  # a Strip of more than the text panics in `tokenizers`
                if type(error).__name__ != "PanicException":
                    raise
        rows.append({"name": name, "tokenizer": json.loads(tokenizer.to_str()), "texts": texts, "decoded": decoded})
    save_jsonl_zst(OUT / "components.jsonl.zst", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", choices=["components"])
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    write_components()
    if args.only:
        return
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
