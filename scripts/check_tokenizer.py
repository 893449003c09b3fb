"""Compares `quiver tokenize` with `tokenizers`: on the data pack and random strings, or on real vocabularies.

Run:  python scripts/check_tokenizer.py --base FILE.gguf [--program build/quiver] [--data DIR] [--random 100000]
      python scripts/check_tokenizer.py --vocabularies [NAME ...] [--random 20000]

`--base` is the GGUF file of SmolLM2-135M-Instruct (default: the cache), or a tokenizer.json. `--vocabularies` takes those of
scripts/golden/vocabularies.py, all or the named ones, and decodes too. Prints the counts; exits with 1 if a single id or character differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "golden"))

import random_text
import vocabularies

ROOT = Path(__file__).resolve().parents[1]
BATCH = 20000
MISSING = 77  # the exit code where a vocabulary was not fetched


def run_program(program: Path, base: Path, values: list, *flags: str) -> list[dict]:
    """The line of `quiver tokenize` for each value."""
    lines = "".join(json.dumps(value) + "\n" for value in values)
    command = [str(program), "tokenize", "--base", str(base), *flags]
    out = subprocess.run(command, input=lines.encode("ascii"), stdout=subprocess.PIPE, check=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    if len(rows) != len(values):
        sys.exit(f"{len(rows)} lines came back for {len(values)}")
    return rows


def differences(what: list, actual: list, expected: list) -> int:
    """How many differ; the first five are printed."""
    wrong = [i for i in range(len(what)) if actual[i] != expected[i]]
    for i in wrong[:5]:
        print(f"differs: {what[i]!r}\n  quiver     {actual[i]!r}\n  tokenizers {expected[i]!r}")
    return len(wrong)


def encoded(oracle, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in oracle.encode_batch(texts, add_special_tokens=False)]


def check_base(args) -> int:
    from make_tokenizer import data_texts, smollm2
    from tokenizers import Tokenizer

    oracle = smollm2() if args.base.suffix == ".gguf" else Tokenizer.from_file(str(args.base))
    texts = data_texts(args.data) + random_text.texts(args.seed, args.random)
    num_tokens = num_wrong = 0
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        expected = encoded(oracle, batch)
        actual = [row["ids"] for row in run_program(args.program, args.base, batch, "--json-lines")]
        num_tokens += sum(map(len, expected))
        num_wrong += differences(batch, actual, expected)
    print(f"{len(texts)} texts ({args.random} random), {num_tokens} tokens, {num_wrong} texts differ")
    return num_wrong


def check_vocabulary(program: Path, name: str, count: int, seed: int = 12) -> int:
    """Encodes `count` texts, decodes their ids and as many others."""
    num_tokens = num_wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        path, oracle = vocabularies.VOCABULARIES[name][1](Path(scratch))
        for start in range(0, count, BATCH):
            texts = vocabularies.texts(oracle, seed + start, min(BATCH, count - start))
            expected = encoded(oracle, texts)
            actual = [row["ids"] for row in run_program(program, path, texts, "--json-lines")]
            num_tokens += sum(map(len, expected))
            num_wrong += differences(texts, actual, expected)
            lists = vocabularies.id_lists(oracle, expected, seed + start)
            decoded = [oracle.decode(ids, skip_special_tokens=False) for ids in lists]
            num_wrong += differences(lists, [row["text"] for row in run_program(program, path, lists, "--decode")], decoded)
    print(f"{name}: {count} texts encoded, as many lists decoded, {num_tokens} tokens, {num_wrong} differ", flush=True)
    return num_wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=vocabularies.folder().parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "quiver")
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--vocabularies", nargs="*", choices=list(vocabularies.VOCABULARIES), metavar="NAME")
    parser.add_argument("--random", type=int)
    parser.add_argument("--seed", type=int, default=12)
    args = parser.parse_args()
    if args.vocabularies is None:
        args.random = 100_000 if args.random is None else args.random
        sys.exit(1 if check_base(args) else 0)
    num_wrong = 0
    for name in args.vocabularies or vocabularies.VOCABULARIES:
        if not (vocabularies.folder() / vocabularies.VOCABULARIES[name][0]).exists():
            print(f"'{vocabularies.folder() / vocabularies.VOCABULARIES[name][0]}' is missing: scripts/setup.sh --test fetches it", file=sys.stderr)
            sys.exit(MISSING)
        num_wrong += check_vocabulary(args.program, name, args.random or 20_000, args.seed)
    sys.exit(1 if num_wrong else 0)


if __name__ == "__main__":
    main()
