"""LoRA files of llama.cpp, made by its own converter of the adapters of PEFT -> tests/golden/gguf_lora.

    .venv/bin/python scripts/golden/make_gguf_lora.py LLAMA_CPP

LLAMA_CPP is the folder vendor/llama.cpp of the source of the Python package llama-cpp-python 0.3.36. The golden values are PEFT's files: each
LoRA must read as the folder that it was made of.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import common

# A name, the base and the adapter, below tests/golden.
CASES = [
    ("plain", "model/llama-tied", "peft/plain"),
    ("head", "model/llama-tied", "peft/head"),
    ("embedding", "model/llama-tied", "peft/embedding"),
    ("phi3", "families/phi3", "families/phi3/adapter"),
    ("gpt_neox", "families/gpt_neox", "families/gpt_neox/adapter"),
]


def main() -> None:
    llama_cpp = Path(sys.argv[1]).resolve()
    environment = os.environ | {"PYTHONPATH": f"{llama_cpp / 'gguf-py'}:{llama_cpp}", "OMP_NUM_THREADS": "1"}
    (common.GOLDEN / "gguf_lora").mkdir(exist_ok=True)
    for name, base, adapter in CASES:
        command = [sys.executable, llama_cpp / "convert_lora_to_gguf.py", "--outtype", "f32"]
        command += ["--base", common.GOLDEN / base, "--outfile", common.GOLDEN / "gguf_lora" / f"{name}.gguf", common.GOLDEN / adapter]
        subprocess.run(list(map(str, command)), check=True, env=environment)


if __name__ == "__main__":
    main()
