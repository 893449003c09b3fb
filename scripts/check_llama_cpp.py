"""Checks that llama.cpp computes what Quiver computes, with the models and adapters that `quiver export` writes.

    make check-llama-cpp

For each family: a small model with SmolLM2's tokenizer (tiny_base.py), an adapter trained for a few steps, and log-probabilities of the tokens
of some texts, by Quiver in float32 with base and adapter, and by llama.cpp from the files in F32. There are two: the base with the adapter
as a file of its own, and the merged model. Prints a line for each; exits with 1 if one differs by more than its tolerance. llama.cpp
computes GELU from a table in half precision, so models that have it differ by more.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from llama_cpp import Llama

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = "llama mistral qwen2 qwen3 smollm3 granite olmo2 phi phi3 stablelm gpt_neox gpt2 gemma gemma2 gemma3_text".split()
FLOAT32 = 0  # ggml's number, for the cache of keys and values
WITH_GELU = {"phi", "gpt_neox", "gpt2", "gemma", "gemma2", "gemma3_text"}
TEXTS = ("The archer drew the bow", " and let the arrow fly over the wall."), ("Is this review positive?", " It says that 12 of 30 guests liked the soup.")


def call(*command):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def log_probabilities(model, lora, requests):
    """Of every token of the continuations, by llama.cpp."""
    llama = Llama(model_path=str(model), lora_path=None if lora is None else str(lora), logits_all=True, n_ctx=256, verbose=False,
                  type_k=FLOAT32, type_v=FLOAT32)
    values = []
    for context, tokens in requests:
        llama.reset()
        llama.eval(tokens)
        logits = np.array(llama.scores[: len(tokens)], dtype=np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        values += [log_p[i - 1, tokens[i]] for i in range(context, len(tokens))]
    return np.array(values)


def check(family, options, folder):
    quiver, base, adapter = options.quiver, folder / "base", folder / "library/adapters"
    call(options.python, "scripts/tiny_base.py", "--family", family, "--output", base, "--quiver", quiver)
    task = sorted(path.name.removesuffix(".jsonl.zst") for path in (ROOT / "data/train").glob("*.jsonl.zst"))[0]
    common = ["--base", base, "--dtype", "float32"]
    call(quiver, "train", *common, "--data", "data/train", "--tasks", task, "--library", folder / "library", "--max-examples", 16, "--lr", "1e-2",
         "--target-modules", "all-linear", "--epochs", 1)
    adapter = adapter / task
    for name, more in (("lora", ["--adapter", adapter, "--format", "gguf-lora"]), ("plain", ["--format", "gguf"]),
                       ("merged", ["--adapter", adapter, "--format", "gguf"])):
        call(quiver, "export", "--base", base, *more, "--type", "f32", "--output", folder / f"{name}.gguf")
    requests = folder / "requests.jsonl"
    requests.write_text("".join(json.dumps({"context": c, "continuation": t}) + "\n" for c, t in TEXTS))
    ours = [json.loads(line) for line in call(quiver, "score", *common, "--no-chat", "--adapter", adapter, "--input", requests).splitlines()]
    ours = np.array([value for row in ours for value in row["token_logprobs"]])

    def ids(text):
        lines = subprocess.run([str(quiver), "tokenize", "--base", str(base), "--json-lines"], input=json.dumps(text) + "\n", capture_output=True, text=True,
                               check=True, cwd=ROOT).stdout
        return json.loads(lines.splitlines()[0])["ids"]

    tokens = [(len(ids(c)), ids(c) + ids(t)) for c, t in TEXTS]
    tolerance = 3e-2 if family in WITH_GELU else 3e-3
    worst = {}
    for name, model, lora in (("adapter", "plain", folder / "lora.gguf"), ("merged", "merged", None)):
        theirs = log_probabilities(folder / f"{model}.gguf", lora, tokens)
        worst[name] = float(np.abs(theirs - ours).max())
    moved = float(np.abs(log_probabilities(folder / "plain.gguf", None, tokens) - ours).max())
    fits = max(worst.values()) < tolerance < moved
    print(f"{family:12} adapter {worst['adapter']:.1e}  merged {worst['merged']:.1e}  (without it {moved:.1f})  {'ok' if fits else 'DIFFERS'}", flush=True)
    return fits


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiver", type=lambda p: pathlib.Path(p).resolve(), default=ROOT / "build/quiver")
    parser.add_argument("--python", default=ROOT / ".venv/bin/python", help="has transformers, for tiny_base.py")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    options = parser.parse_args()
    results = []
    for family in options.families:
        with tempfile.TemporaryDirectory() as folder:
            results.append(check(family, options, pathlib.Path(folder)))
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
