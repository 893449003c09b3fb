"""Checks that an adapter folder means the same to PEFT as to us.

    .venv/bin/python scripts/check_peft.py --base DIR --adapter DIR --ids FILE.json --logits FILE.safetensors \
        [--tolerance 1e-4]

Loads the base model (a Hugging Face folder or a GGUF file) in fp32, the adapter with PEFT, and compares the logits.
FILE.json holds one list of token ids or a list of such lists; FILE.safetensors holds `logits` or `logits.0`,
`logits.1`, ..., each [tokens, vocabulary] (or [vocabulary]: the last position only). Prints one JSON object; exits
with 1 when a logit differs by more than the tolerance, and with 2 when the files do not fit together.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import LlamaForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="Hugging Face folder or .gguf file")
    parser.add_argument("--adapter", type=Path, required=True, help="PEFT adapter folder")
    parser.add_argument("--ids", type=Path, required=True, help="JSON: token ids of one sequence or of several")
    parser.add_argument("--logits", type=Path, required=True, help="safetensors: logits to compare with")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest absolute difference (default 1e-4)")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def load_base(path: Path):
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    if path.is_file():
        return LlamaForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, **options)
    return LlamaForCausalLM.from_pretrained(str(path), **options)


def refuse(message: str) -> None:
    print(f"check_peft: {message}", file=sys.stderr)
    sys.exit(2)


@torch.no_grad()
def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    sequences = json.loads(options.ids.read_text())
    if sequences and isinstance(sequences[0], int):
        sequences = [sequences]
    given = load_file(str(options.logits))
    names = ["logits"] if len(sequences) == 1 and "logits" in given else [f"logits.{i}" for i in range(len(sequences))]
    if not sequences or any(name not in given for name in names):
        refuse(f"'{options.logits}' holds {sorted(given)}; expected {names}")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(load_base(options.base), str(options.adapter)).eval()
    missing = [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
    if missing:
        refuse(f"'{options.adapter}' lacks tensors that its config names: {missing[0]}")
    written = set(load_file(str(options.adapter / "adapter_model.safetensors")))
    unread = sorted(written - set(get_peft_model_state_dict(model, save_embedding_layers=False)))
    if unread:
        refuse(f"'{options.adapter}' holds {len(unread)} tensors that PEFT ignores, among them '{unread[0]}'")

    worst = 0.0
    for name, ids in zip(names, sequences):
        theirs = model(input_ids=torch.tensor([ids])).logits[0].float()
        ours = given[name].float()
        theirs = theirs[-1] if ours.dim() == 1 else theirs
        if ours.shape != theirs.shape:
            refuse(f"'{name}' is {list(ours.shape)}; PEFT's logits of these {len(ids)} ids are {list(theirs.shape)}")
        difference = (ours - theirs).abs().max().item()
        worst = max(worst, difference if difference == difference else float("inf"))
    agrees = worst <= options.tolerance
    print(json.dumps({"agrees": agrees, "largest_difference": worst, "tolerance": options.tolerance}))
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
