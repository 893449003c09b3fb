"""What lm-evaluation-harness makes of texts with the tiny model -> tests/golden/lm_eval_text: texts.jsonl, cases.json, README.md.

    .venv/bin/python scripts/golden/make_lm_eval_text.py

Takes `scripts/setup.sh --test` first: the harness lies in .venv-clients, torch and transformers in .venv.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/golden/lm_eval_text"
MODEL = ROOT / "tests/golden/model/llama-tied"


def texts() -> list:
    licence = (ROOT / "data/heldout_gen/LICENSE-bbh").read_text(encoding="utf-8")
    return [
        {"id": "licence", "title": "Licence", "text": licence},
        {"id": "empty", "title": "", "text": ""},
        {"id": "spaces", "title": "R\u00e9sum\u00e9", "text": "  Zw\u00f6lf Boxk\u00e4mpfer\u00a0jagen\u3000Viktor \U0001f600 quer \u00fcber\n\n\tden Sylter Deich. \n"},
        {"id": "bos", "title": "Chat", "text": "<|im_start|>user\nHello<|im_end|>\n"},
        {"id": "window", "title": "Repeated", "text": "ab " * 200},
    ]


def main() -> None:
    for site in sorted((ROOT / ".venv-clients/lib").glob("python3*/site-packages")):
        sys.path.append(str(site))  # behind .venv's own packages
    rows = texts()
    (FOLDER / "texts.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(HF_HOME=cache, HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", LMEVAL_LOG_LEVEL="ERROR", TQDM_DISABLE="1")
        os.chdir(FOLDER)
        import lm_eval
        import torch
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        harness = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(MODEL), batch_size=1, device="cpu")
        found = lm_eval.simple_evaluate(model=harness, tasks=["texts", "pages"], bootstrap_iters=0,
                                        task_manager=TaskManager(include_path=str(FOLDER), include_defaults=False))
    cases = {}
    for name, samples in found["samples"].items():
        samples = sorted(samples, key=lambda sample: sample["doc_id"])
        results = {key.split(",")[0]: value for key, value in found["results"][name].items() if key.endswith(",none") and "stderr" not in key}
        cases[name] = {"max_length": harness.max_length, "prefix_token": harness.prefix_token_id, "results": results, "rows": [
            {"id": sample["doc"]["id"], "text": sample["arguments"][0][0], "tokens": len(harness.tok_encode(sample["arguments"][0][0])),
             "log_likelihood": sample["filtered_resps"][0]} | {name: sample[name][1] for name in sample["metrics"]} for sample in samples]}
    (FOLDER / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    version = importlib.metadata.version
    (FOLDER / "README.md").write_text(
        f"""# Golden values: perplexities of lm-evaluation-harness

`cases.json`: rolling log-likelihoods of the texts of `texts.jsonl` under the tiny model `tests/golden/model/llama-tied` (context 256), and the figures
over all of them, by lm-eval {version("lm-eval")} in float32 (torch {version("torch")}, transformers {version("transformers")}). Each row has the length that a metric
divides by under the metric's name. No seed. The first text is data/heldout_gen/LICENSE-bbh; the others are made up.

The harness sums up float32, so that a log-likelihood of 3000 nats has an error of 1e-3 or so: tests allow 2e-6 of it.

Made by `scripts/golden/make_lm_eval_text.py`.
""", encoding="utf-8")


if __name__ == "__main__":
    main()
