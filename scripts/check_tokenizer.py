"""Compares `quiver tokenize` with `tokenizers` on every string of the data pack and on random strings.

Run:  python scripts/check_tokenizer.py --base FILE.gguf [--program build/quiver] [--data DIR] [--random 100000]

`--base` is the GGUF file of SmolLM2-135M-Instruct (default: the cache), or a tokenizer.json. Prints the counts; exits
with 1 if a single id differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "golden"))

import random_text
from common import DATA, ROOT, smollm2_path
from make_tokenizer import data_texts, smollm2
from tokenizers import Tokenizer

BATCH = 20000


def ids_of_program(program: Path, base: Path, texts: list[str]) -> list[list[int]]:
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    command = [str(program), "tokenize", "--base", str(base), "--json-lines"]
    out = subprocess.run(command, input=lines.encode("ascii"), stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line)["ids"] for line in out.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=smollm2_path())
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "quiver")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--random", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=12)
    args = parser.parse_args()
    oracle = smollm2() if args.base.suffix == ".gguf" else Tokenizer.from_file(str(args.base))
    texts = data_texts(args.data) + random_text.texts(args.seed, args.random)
    num_tokens = num_wrong = 0
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        actual = ids_of_program(args.program, args.base, batch)
        if len(actual) != len(batch):
            sys.exit(f"{len(actual)} lines came back for {len(batch)} texts")
        for text, ids, encoding in zip(batch, actual, oracle.encode_batch(batch, add_special_tokens=False)):
            num_tokens += len(encoding.ids)
            if ids != encoding.ids:
                num_wrong += 1
                if num_wrong <= 5:
                    print(f"differs: {text!r}\n  quiver     {ids}\n  tokenizers {encoding.ids}")
    print(f"{len(texts)} texts ({args.random} random), {num_tokens} tokens, {num_wrong} texts differ")
    sys.exit(1 if num_wrong else 0)


if __name__ == "__main__":
    main()
