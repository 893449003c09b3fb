"""What lm-evaluation-harness computes of choices, answers and texts -> tests/golden/metrics/lm_eval.jsonl.zst.

    .venv-clients/bin/python scripts/golden/make_lm_eval.py

It runs in the environment of the API's clients, where lm-eval is; make_pairs.py runs before it. No model takes part: log-likelihoods are
invented, and lm-eval's own functions work on them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[name] = "1"

import numpy  # noqa: E402
from lm_eval.api.metrics import bits_per_byte, exact_match_hf_evaluate, weighted_perplexity  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.filters.extraction import RegexFilter, WhitespaceFilter  # noqa: E402
from lm_eval.models.utils import postprocess_generated_text  # noqa: E402
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "golden" / "metrics"
SEED = 59
IGNORED = [None, [",", "\\$", "(?s).*#### ", "\\.$"], ["\\s+", "x*"]]
STOPS = [["\n"], ["\n\n", "Q:", "</s>"], [".", ","], [",", "."], ["ab", "bc"], ["bc", "ab"], ["", " the"], ["é", "Σ"], []]
PATTERNS = [r"#### (\-?[0-9\.\,]+)", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", r"(?<=answer is )(.*)(?=.)", r"\(([A-D])\)", r"x*", r"a??", r"(a)|b|(c)", r"\w+",
            r"\s(.)", r"^.", r".$", r"\b", r"[^\W\d]+|\d", r"(?:(a)|(b))*", r"(?s)(.*)", r"a|", r"(?=\S)|\s"]


class Question(ConfigurableTask):
    """A task of one question, its files and prompts left out."""

    def __init__(self, output_type, metrics, target, choices=None, options=None):
        self.OUTPUT_TYPE = output_type
        self._config = SimpleNamespace(process_results=None, doc_to_choice=None)
        self._metric_fn_list = {metric: lambda **kwargs: exact_match_hf_evaluate(**kwargs) for metric in metrics}
        self._metric_fn_kwargs = {"exact_match": options or {}}
        self._aggregation_list, self._higher_is_better = {}, {}
        self.multiple_input = 0
        self.multiple_target = isinstance(target, list)
        self.target, self.choices = target, choices

    def doc_to_target(self, doc, doc_to_target=None):
        return self.target

    def doc_to_choice(self, doc, doc_to_choice=None):
        return self.choices


def read_pairs() -> list:
    text = subprocess.run(["zstd", "-dc", str(FOLDER / "pairs.jsonl.zst")], check=True, capture_output=True).stdout.decode()
    return [json.loads(line) for line in text.split("\n") if line]


def option_sets() -> list[dict]:
    sets = []
    for case, punctuation, numbers in itertools.product([False, True], repeat=3):
        for patterns in IGNORED:
            options = {"ignore_case": case, "ignore_punctuation": punctuation, "ignore_numbers": numbers}
            sets.append(options | ({"regexes_to_ignore": patterns} if patterns else {}))
    return sets


def exact_matches(rows: list) -> list:
    """For every set of options a bit per pair; then bits of answers with the next four targets as further references."""
    found = []
    for options in option_sets():
        def score(target, prediction):
            return Question("generate_until", ["exact_match"], target, options=options).process_results({}, [prediction])["exact_match"]

        single = "".join(str(int(score(target, prediction))) for target, prediction, *_ in rows)
        several = "".join(str(int(score([row[0] for row in rows[i : i + 5]], rows[i][1]))) for i in range(0, len(rows), 5))
        found.append({"options": options, "single": single, "several": several})
    return found


def choices() -> list:
    words = ["yes", "no", "a longer answer", "été", "日本語", "İstanbul", "👩‍👩‍👧‍👦", "42", "Ωμέγα", "x"]
    metrics = ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"]
    found = []
    for index in range(300):
        rng = random.Random(f"{SEED}/choice/{index}")
        texts = [" ".join(rng.choice(words) for _ in range(rng.randint(1, 3))) for _ in range(rng.randint(2, 6))]
        # Halves and multiples of lengths make ties.
        scores = [-rng.choice([0.5 * rng.randint(1, 6), 0.25 * len(text), 0.25 * len(text.encode()), rng.expovariate(0.2)]) for text in texts]
        alone = [score - rng.choice([0, 0.5, 1.0, rng.gauss(0, 1)]) for score in scores]
        hits = []
        for label in range(len(texts)):
            question = Question("multiple_choice", metrics, label, texts)
            result = question.process_results({}, [(score, False) for score in scores + alone])
            hits.append([int(result[metric]) for metric in metrics])
        chosen = [[hit[i] for hit in hits].index(1) for i in range(len(metrics))]
        tokens = [[-rng.expovariate(0.7) for _ in range(rng.randint(1, 9))] for _ in texts]
        per_token = int(numpy.argmin([-numpy.mean(row) for row in tokens]))
        found.append({"choices": texts, "scores": scores, "unconditional": alone, "token_log_probs": tokens,
                      **dict(zip(metrics, chosen)), "per_token": per_token})
    return found


def perplexities(rows: list) -> dict:
    """Words by the harness' own count; then the three metrics over all and over parts of the texts."""
    rng = random.Random(f"{SEED}/perplexity")
    metrics = ["word_perplexity", "byte_perplexity", "bits_per_byte"]
    texts = [row[0] for row in rows[:2000]]
    scores = [-1.7 * len(text.encode()) * rng.random() for text in texts]
    results = [Question("loglikelihood_rolling", metrics, text).process_results({}, [score]) for text, score in zip(texts, scores)]
    parts = []
    for first, count in [(0, 2000), (100, 1), (500, 7), (1000, 300)]:
        part = results[first : first + count]
        items = {metric: [result[metric] for result in part] for metric in metrics}
        parts.append({"first": first, "count": count, "word_perplexity": weighted_perplexity(items["word_perplexity"]),
                      "byte_perplexity": weighted_perplexity(items["byte_perplexity"]), "bits_per_byte": bits_per_byte(items["bits_per_byte"])})
    return {"words": [result["word_perplexity"][1] for result in results], "scores": scores, "parts": parts}


def windows() -> list:
    found = []
    for num_tokens, max_length, context in itertools.product([0, 1, 2, 5, 7, 8, 9, 16, 23, 40], [1, 2, 4, 7, 8], [1, 2, 4]):
        if context > max_length:
            continue
        tokens = list(range(100, 100 + num_tokens))
        pairs = [make_disjoint_window(pair) for pair in get_rolling_token_windows(tokens, 7, max_length, context)]
        found.append({"num_tokens": num_tokens, "max_length": max_length, "context": context, "windows": pairs})
    return found


def answers(rows: list) -> dict:
    """Per text the cuts at every set of stop strings, stripped text, and the answers of every pattern (null: lm-eval fails)."""
    def filtered(pattern, select, text):
        try:
            return RegexFilter(pattern, select, " none ").apply([[text]], [{}])[0][0]
        except IndexError:
            return None

    indices = list(range(0, 150)) + list(range(150, len(rows), 33))
    found = []
    for index in indices:
        text = rows[index][1]
        found.append({"pair": index, "cut": [postprocess_generated_text(text, stops, None) for stops in STOPS],
                      "thought": postprocess_generated_text(text, None, " a"), "stripped": WhitespaceFilter().apply([[text]], [{}])[0][0],
                      "regex": [[filtered(pattern, select, text) for select in (0, 1, -1)] for pattern in PATTERNS]})
    return {"stops": STOPS, "patterns": PATTERNS, "texts": found}


def main() -> None:
    rows = read_pairs()
    value = {"exact_match": exact_matches(rows), "choices": choices(), "perplexity": perplexities(rows), "windows": windows(), "answers": answers(rows)}
    for item in value["exact_match"]:
        print(item["options"], item["single"].count("1"), item["several"].count("1"))
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    packed = subprocess.run(["zstd", "--ultra", "-22", "-c", "-q"], input=text.encode(), check=True, capture_output=True).stdout
    (FOLDER / "lm_eval.jsonl.zst").write_bytes(packed)
    print(len(text), "bytes,", len(packed), "packed")


if __name__ == "__main__":
    main()
