"""Peer benchmark: prompts and greedy decoding under PEFT's Arrow, and of the base alone.

    .venv/bin/python bench/peers/peft_arrow.py --adapters FOLDER --count 64 --threads 2

FOLDER holds PEFT adapters; the first --count by name are routed, top 4. Prints one JSON object: seconds of a prompt of --length random
tokens, and of a token decoded after it, with and without adapters.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from peft import ArrowConfig, create_arrow_model

import peers


def arguments():
    parser = peers.parser(__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--count", type=int, default=23)
    parser.add_argument("--length", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


@torch.inference_mode()
def measure(model, options) -> tuple[float, float]:
    """Medians: (seconds of a prompt, seconds of a token)."""
    prompts, tokens = [], []
    for run in range(options.runs + 1):
        ids = torch.randint(1000, 40000, (1, options.length), generator=torch.Generator().manual_seed(run))
        start = time.monotonic()
        out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        prompts.append(time.monotonic() - start)
        for _ in range(options.new_tokens):
            start = time.monotonic()
            out = model(input_ids=out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
            tokens.append(time.monotonic() - start)
    return statistics.median(prompts[1:]), statistics.median(tokens[options.new_tokens :])


def main():
    options = arguments()
    model, _ = peers.load(options)
    prompt, token = measure(model.eval(), options)
    folders = sorted(str(path) for path in options.adapters.iterdir())[: options.count]
    routed = create_arrow_model(model, folders, ArrowConfig(top_k=min(4, len(folders)))).eval()
    arrow_prompt, arrow_token = measure(routed, options)
    peers.report(options, prompt_seconds=prompt, token_seconds=token, arrow_prompt_seconds=arrow_prompt, arrow_token_seconds=arrow_token)


if __name__ == "__main__":
    main()
