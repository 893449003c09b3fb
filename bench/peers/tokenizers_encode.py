"""Megabytes of text a second that `tokenizers` encodes on one thread. Prints one line of JSON.

    python bench/peers/tokenizers_encode.py --tokenizer FILE --texts FILE.jsonl

`--tokenizer` is a tokenizer.json, or the GGUF file of SmolLM2. Loading is left out.
"""

import argparse
import json
import os
import pathlib
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/golden"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--texts", type=pathlib.Path, required=True)
    options = parser.parse_args()
    if options.tokenizer.suffix == ".gguf":
        import gguf
        from make_smollm2 import tokenizer_from_gguf

        tokenizer = tokenizer_from_gguf(gguf.GGUFReader(str(options.tokenizer)))
    else:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(options.tokenizer))
    texts = [json.loads(line) for line in options.texts.read_text().splitlines()]
    started = time.monotonic()
    num_tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))
    seconds = time.monotonic() - started
    print(json.dumps({"megabytes_per_second": sum(len(text.encode()) for text in texts) / 1e6 / seconds, "tokens": num_tokens}))


if __name__ == "__main__":
    main()
