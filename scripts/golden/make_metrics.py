"""ROUGE-L, Porter stems and multiple-choice accuracy by the originals, pass@k by its formula -> tests/golden/metrics.

    .venv/bin/python scripts/golden/make_metrics.py
"""

from __future__ import annotations

import random
import re
import zlib
from fractions import Fraction
from math import comb

from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from rouge_score.tokenize import tokenize

import common

FOLDER = common.GOLDEN / "metrics"
MC_SETS = ["arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande"]
EDGES = [
    ("", ""), ("", "word"), ("word", ""), ("...", "..."), ("a", "a"), ("A", "a"), ("the cats", "the cat"),
    ("12", "12"), ("12.5%", "12 5"), ("1,000", "1000"), ("running runs ran", "run runs running"),
    ("don't", "dont"), ("don't", "don t"), ("naïve café", "naive cafe"), ("naïve café", "naïve café"),
    ("日本語", "日本語"), ("日本語 text", "text 日本語"), ("Straße", "strasse"), ("ΑΒΓ abc", "abc"),
    ("İstanbul", "istanbul"), ("\u212aelvin", "kelvin"), ("e\u0301tude", "etude"), ("snake_case", "snake case"),
    ("a b c d e f", "f e d c b a"), ("a a a a", "a a"), ("a b a b a", "b a b"), ("tab\there\nline", "tab here line"),
    ("police killed the gunman", "police kill the gunman"), ("police killed the gunman", "the gunman kill police"),
    ("dies died dying", "die dies died"), ("generalizations", "generalization"), ("oed", "oe"), ("skies", "sky"),
    ("🏹 arrow", "arrow 🎯"), ("x" * 60, "x" * 60), ("\u0660\u0661 2", "2"), ("ﬁne", "fine"),
]


def read_tasks() -> tuple[list, list]:
    """(targets of the held-out and some training tasks, all rows' text for the word list)."""
    files = sorted((common.DATA / "heldout_sni").glob("*.zst")) + sorted((common.DATA / "train").glob("*.zst"))[::4]
    rows = [row for path in files for row in common.load_jsonl_zst(path)[:80]]
    return rows, [" ".join([row["instruction"], row["input"], row["target"]]) for row in rows]


def perturb(text: str, generator: random.Random) -> str:
    """A plausible prediction: words dropped, doubled, swapped, inflected or recased."""
    words = text.split()
    kind = generator.randrange(6)
    if kind == 0 or not words:
        return text
    if kind == 1:
        return " ".join(word for word in words if generator.random() > 0.3)
    if kind == 2:
        generator.shuffle(words)
    if kind == 3:
        words = [word + generator.choice(["s", "ed", "ing", "ly", ""]) for word in words]
    if kind == 4:
        words = [word.upper() if generator.random() < 0.4 else word for word in words] + words[:1]
    if kind == 5:
        at = generator.randrange(len(words))
        words = words[at:] + ["the", "answer", "is"] + words[:at]
    return " ".join(words)


def rouge_cases(rows: list) -> list:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    plain = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    generator = random.Random(41)
    distinct = sorted({row["target"] for row in rows if len(row["target"]) < 200})
    targets = generator.sample(distinct, 330)
    pairs = [(text, perturb(text, generator)) for text in targets]
    pairs += [(a, generator.choice(targets)) for a in generator.sample(targets, 40)] + EDGES
    cases = []
    for reference, prediction in pairs:
        score, unstemmed = (s.score(reference, prediction)["rougeL"] for s in (scorer, plain))
        cases.append({"reference": reference, "prediction": prediction, "precision": score.precision,
                      "recall": score.recall, "f": score.fmeasure, "f_unstemmed": unstemmed.fmeasure})
    return cases


def stem_cases(texts: list) -> list:
    """[word, stem] as rouge_score stems: words of more than three characters, the others unchanged."""
    stemmer = PorterStemmer()
    words = sorted({word for text in texts for word in re.findall(r"[a-z0-9]+", text.lower())})
    random.Random(43).shuffle(words)
    suffixes = ["ational", "ization", "fulness", "iveness", "ousness", "biliti", "ability", "ies", "ied", "eed", "ying"]
    words = words[:3000] + ["aa" + s for s in suffixes] + ["tr" + s for s in suffixes] + [
        "sky", "skies", "dying", "lying", "tying", "news", "innings", "outing", "cannings", "howe", "proceed", "exceed",
        "succeed", "happy", "enjoy", "agreed", "plastered", "bled", "motoring", "sing", "conflated", "troubled", "sized",
        "hopping", "tanned", "falling", "hissing", "fizzed", "failing", "filing", "controll", "roll", "cease", "rate",
    ]
    return [[word, tokenize(word, stemmer)[0]] for word in sorted(set(words))]


def choice_cases() -> list:
    """Real questions with fake scores; acc and acc_norm as the data pack's README defines them."""
    cases = []
    for name in MC_SETS:
        for row in common.load_jsonl_zst(common.DATA / "heldout_mc" / f"{name}.jsonl.zst")[:12]:
            generator = random.Random(zlib.crc32(row["id"].encode()))
            scores = [-0.3 * len(choice) - generator.expovariate(0.2) for choice in row["choices"]]
            norms = [score / len(choice) for score, choice in zip(scores, row["choices"])]
            cases.append({
                "task": name, "choices": row["choices"], "label": row["label"], "scores": scores,
                "acc": int(scores.index(max(scores)) == row["label"]),
                "acc_norm": int(norms.index(max(norms)) == row["label"]),
            })
    return cases


def pass_at_k_cases() -> list:
    """[n, c, k, 1 - C(n - c, k) / C(n, k)], the fraction exact, then rounded to the nearest float64."""
    generator = random.Random(53)
    counts = [(n, c, k) for n in range(1, 7) for c in range(n + 1) for k in range(1, n + 1)]
    for size in (20, 200, 1000, 10_000):
        for _ in range(40):
            n = generator.randint(2, size)
            counts.append((n, generator.randint(0, n if generator.random() < 0.3 else n // 10 + 1), generator.randint(1, n)))
    return [[n, c, k, float(1 - Fraction(comb(n - c, k), comb(n, k)))] for n, c, k in counts]


def main() -> None:
    rows, texts = read_tasks()
    rouge, stems, choices = rouge_cases(rows), stem_cases(texts), choice_cases()
    common.save_json(FOLDER / "rouge.json", {"cases": rouge}, indent=None)
    common.save_json(FOLDER / "stems.json", {"stems": stems}, indent=None)
    means = {key: sum(case[key] for case in choices) / len(choices) for key in ("acc", "acc_norm")}
    common.save_json(FOLDER / "choice.json", {"cases": choices, "mean": means}, indent=None)
    common.save_json(FOLDER / "pass_at_k.json", {"cases": pass_at_k_cases()}, indent=None)
    print(len(rouge), "pairs,", len(stems), "stems,", len(choices), "questions", means)
    print("stemming changes", sum(case["f"] != case["f_unstemmed"] for case in rouge))


if __name__ == "__main__":
    main()
