"""Real vocabularies that scripts/setup.sh --test fetches, each with its tokenizer in Python: the original that Quiver is compared with.

A vocabulary is a file that Quiver reads. Its original is the same file by `tokenizers`; for the scores of a GGUF file, merges in the order of
the scores, which is what Hugging Face's conversion of such a vocabulary holds. transformers' AutoTokenizer is no original: version 5 builds
SentencePiece tokenizers anew and leaves the file's normalizer out.
"""

from __future__ import annotations

import json
import os
import random
import struct
import zipfile
from pathlib import Path

import random_text
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

MARK = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # token types of SentencePiece and GGUF
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def folder() -> Path:
    """Where scripts/setup.sh --test puts vocabularies: in the folder of `quiver fetch`."""
    for variable, below in (("QUIVER_CACHE", ""), ("XDG_CACHE_HOME", "quiver"), ("HOME", ".cache/quiver")):
        if os.environ.get(variable):
            return Path(os.environ[variable]) / below / "vocabularies"
    return Path(".cache/quiver/vocabularies")


def merges_of_scores(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, in the order of scores. Pieces are those that merging may make."""
    known = {piece for piece, _ in pieces}
    out = []
    for piece, score in pieces:
        out += [(score, piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in known and piece[i:] in known]
    out.sort(key=lambda merge: -merge[0])  # stable: of equal scores as listed
    return [(left, right) for _, left, right in out]


def scored(tokens: list[str], scores: list[float], types: list[int], rstrip: bool = False) -> Tokenizer:
    """A SentencePiece vocabulary with a mark in front of each text."""
    pieces = [(t, s) for t, s, k in zip(tokens, scores, types) if t and k not in (UNKNOWN, CONTROL, BYTE)]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, merges_of_scores(pieces), unk_token=tokens[0], fuse_unk=True, byte_fallback=True)
    out = Tokenizer(model)
    out.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    out.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = [t for t, k in zip(tokens, types) if k == CONTROL or t == tokens[0]]
    plain = ("<unk>", "<s>", "<|endoftext|>")
    out.add_special_tokens([AddedToken(t, normalized=False, rstrip=rstrip and t not in plain) for t in special])
    out.add_tokens([AddedToken(t, normalized=False, rstrip=rstrip) for t, k in zip(tokens, types) if k == USER_DEFINED])
    return out


def scored_gguf(path: Path, rstrip: bool = False) -> Tokenizer:
    from gguf import GGUFReader

    field = GGUFReader(str(path)).fields
    tokens, scores, types = (field[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "scores", "token_type"))
    # Placeholders of type unknown are not in Hugging Face's file.
    types = [UNUSED if kind == UNKNOWN and i else kind for i, kind in enumerate(types)]
    return scored(tokens, scores, types, rstrip)


def sentencepiece_pieces(data: bytes) -> list[tuple[str, float, int]]:
    """(piece, score, type) of a SentencePiece model: field 1 of the message, of which 1, 2 and 3 are these."""

    def varint(at):
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 127) << shift
            shift, at = shift + 7, at + 1
            if byte < 128:
                return value, at

    def fields(at, end):
        while at < end:
            key, at = varint(at)
            kind = key & 7
            if kind == 0:
                value, at = varint(at)
            elif kind == 5:
                value, at = struct.unpack("<f", data[at : at + 4])[0], at + 4
            else:
                size, at = varint(at)
                value, at = (at, at + size), at + size
            yield key >> 3, value

    out = []
    for number, value in fields(0, len(data)):
        if number == 1:
            piece = {1: (0, 0), 2: 0.0, 3: NORMAL, **dict(fields(*value))}
            out.append((data[slice(*piece[1])].decode("utf-8"), piece[2], piece[3]))
    return out


def mistral_file(name: str) -> bytes:
    [wheel] = (folder() / "mistral-common").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        return files.read(f"mistral_common/data/{name}")


def write_gguf(path: Path, model: str, pre: str, tokens: list[str], types: list[int], scores=None, merges=None) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token.encode("utf-8") for token in tokens])  # as it is, without a shorter spelling
    writer.add_token_types(types)
    if scores is not None:
        writer.add_token_scores(scores)
    if merges is not None:
        writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def mistral_spm(version: str):
    """A SentencePiece model of mistral-common as GGUF scores, against its scores as merges."""

    def make(scratch: Path):
        pieces = sentencepiece_pieces(mistral_file(f"{version}"))
        tokens, scores, types = (list(column) for column in zip(*pieces))
        path = scratch / f"{version}.gguf"
        write_gguf(path, "llama", "default", tokens, types, scores=scores)
        return path, scored(tokens, scores, types)

    return make


def byte_level_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """tiktoken's ranks as merges: the two tokens that its own merging makes a token of, by the token's rank."""
    out = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
            if ranks.get(parts[best] + parts[best + 1], rank) >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            out.append((parts[0], parts[1]))
    return out


def printable_bytes() -> list[str]:
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(256)]


def tekken(scratch: Path):
    """Mistral's tekken as a GGUF file, against its vocabulary with Hugging Face's pattern."""
    data = json.loads(mistral_file("tekken_240718.json"))
    size = data["config"]["default_vocab_size"] - data["config"]["default_num_special_tokens"]
    import base64

    spell = printable_bytes()
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in data["vocab"][:size]}
    spelled = lambda token: "".join(spell[byte] for byte in token)  # noqa: E731
    merges = [(spelled(left), spelled(right)) for left, right in byte_level_merges(ranks)]
    tokens = [spelled(token) for token, _ in sorted(ranks.items(), key=lambda item: item[1])]
    path = scratch / "tekken.gguf"
    write_gguf(path, "gpt2", "tekken", tokens, [NORMAL] * len(tokens), merges=[" ".join(merge) for merge in merges])
    out = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, ignore_merges=True))
    out.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(TEKKEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    out.decoder = decoders.ByteLevel()
    return path, out


def cut_as(name: str, pattern: str):
    """Llama 3's vocabulary under another name of tokenizer.ggml.pre, against the same vocabulary with the pattern that the name means."""

    def make(scratch: Path):
        source = json.loads((folder() / "llama3" / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = source["model"]["vocab"]
        merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in source["model"]["merges"]]
        tokens = sorted(vocabulary, key=vocabulary.get)
        path = scratch / f"{name}.gguf"
        write_gguf(path, "gpt2", name, tokens, [NORMAL] * len(tokens), merges=[" ".join(merge) for merge in merges])
        out = Tokenizer(models.BPE(vocabulary, merges))
        out.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        out.decoder = decoders.ByteLevel()
        return path, out

    return make


def from_json(name: str):
    def make(scratch: Path):
        path = folder() / name / "tokenizer.json"
        return path, Tokenizer.from_file(str(path))

    return make


def from_scores(name: str, rstrip: bool = False):
    def make(scratch: Path):
        path = folder() / "llama.cpp" / f"ggml-vocab-{name}.gguf"
        return path, scored_gguf(path, rstrip)

    return make


# name: (what must have been fetched, makes (file, original) in a scratch folder)
VOCABULARIES = {
    "llama2": ("llama2/tokenizer.json", from_json("llama2")),
    "llama3": ("llama3/tokenizer.json", from_json("llama3")),
    "gemma3": ("gemma3/tokenizer.json", from_json("gemma3")),
    "qwen3": ("qwen3/tokenizer.json", from_json("qwen3")),
    "llama_spm": ("llama.cpp/ggml-vocab-llama-spm.gguf", from_scores("llama-spm")),
    "phi_3": ("llama.cpp/ggml-vocab-phi-3.gguf", from_scores("phi-3", rstrip=True)),
    "mistral_v1": ("mistral-common", mistral_spm("tokenizer.model.v1")),
    "mistral_v3": ("mistral-common", mistral_spm("mistral_instruct_tokenizer_240323.model.v3")),
    "tekken": ("mistral-common", tekken),
    "gpt_4o": ("llama3/tokenizer.json", cut_as("gpt-4o", O200K)),
}


def texts(tokenizer: Tokenizer, seed: int, count: int) -> list[str]:
    """Random strings; every third is of what such a vocabulary finds difficult: marks, runs of spaces, spellings of its tokens."""
    added = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
    size = tokenizer.get_vocab_size()
    units = ["a", "e", " ", "  ", " " * 7, " " * 40, "the", "ing", "\n", "\n\n", "\t", "\t\t", "-", "=", "ab", "1", "é", "日", "本", "\u0301", "🦙", "\0",
             MARK, MARK * 2, "<0x41>", "<unk>", "<s>", "</s>", "<b>", "</b>", "don't 'll", "Ab", "AB"]

    def difficult(index: int) -> str:
        rng = random.Random(f"{seed}/{index}")
        draw = [lambda: rng.choice(units), lambda: rng.choice(units), lambda: rng.choice(added or units),
                lambda: tokenizer.id_to_token(rng.randrange(size)) or ""]
        return "".join(rng.choice(draw)() for _ in range(rng.randint(1, 40)))

    return [difficult(i) if i % 3 == 0 else random_text.text(seed, i) for i in range(count)]


def id_lists(tokenizer: Tokenizer, encoded: list[list[int]], seed: int) -> list[list[int]]:
    """What to decode: half of the encoded texts, and as many lists of ids as no text gives them."""
    rng = random.Random(f"{seed}/ids")
    size = tokenizer.get_vocab_size()
    bytes_ = [i for i in (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)) if i is not None]

    def drawn() -> int:
        return rng.choice(bytes_) if bytes_ and rng.random() < 0.5 else rng.randrange(size)

    half = encoded[::2]
    return half + [[drawn() for _ in range(rng.randint(0, 20))] for _ in half]
