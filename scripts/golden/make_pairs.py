"""10,000 pairs of texts with their Rouge-L by rouge-score and normalised exact match -> tests/golden/metrics/pairs.jsonl.zst.

    .venv/bin/python scripts/golden/make_pairs.py

make_lm_eval.py comes after it: it reads the pairs.
"""

from __future__ import annotations

import json
import random
import string
import subprocess
import unicodedata

from rouge_score import rouge_scorer

import common
import random_text
from make_metrics import EDGES, perturb

PATH = common.GOLDEN / "metrics" / "pairs.jsonl.zst"
COUNT = 10_000
SEED = 47
LONGEST = 90  # characters of a real text
TRICKY = [
    "İstanbul", "İİ", "I İ i ı", "DİYARBAKIR", "ΟΔΥΣΣΕΥΣ", "ΣΑΣ", "Σ", "ΑΣ ΒΣ", "ΑΣ' Σ", "ΑΣ.Β", "Α\u0301Σ\u0301", "1Σ", "ʰΣ", "ⅧΣ", "ΑΣ\u00ad",
    "ΑΣ\u00adΑ", "Straße", "STRASSE", "ẞ", "groẞ", "\u212aelvin", "\u212a", "\u212bngstrom", "Ångström", "ﬁne ﬂow", "ǅ ǆ Ǆ", "Ⅷ ⅷ", "Ⓐ ⓐ",
    "ΐ", "ΰ", "ŉ", "ǰ", "Ჿ", "ᲀ Ꭰ ꭰ", "Ꙁ ꙁ", "𐐀 𐐨", "𞤀 𞤢", "ЁЖ", "ёж", "Ի և", "Ა ა", "é É e\u0301", "naïve café", "日本語、です。", "中文 ，。", "한국어 한국",
    "हिन्दी", "ไทย", "العربية ٣", "עִבְרִית", "👩‍👩‍👧‍👦 😀", "🏳️‍🌈", "🇩🇪", "❤️", "1️⃣ 2", "½ ² ③", "“quoted” — it’s…", "¿Qué? ¡Sí!", "«oui»", "a\u200bb", "\ufeffa",
    "a\u0000", "\u0000", "a\u0000b", "a\u0000.", "İ\u0000", "\x1c \x1f", "\x07bell\x7f", "\u0085", "\u2028\u2029", "\u3000", "", " ", "\n", "\t\r\n",
    "#### 1,000.", "$1,234.50", "The answer is (B).", "A.", "(A)", "42", "-3.0", "#### -7", "yes", "No", "True", "None of these",
]
SPACES = [" ", "  ", "\n", "\t", "\u00a0", "\u2003", "\u3000", "\x1c", "\u0085", "\u2028"]
TAILS = ["\u0000", "\u0301", "\u0307", "\u200d", "\ufe0f", "😀", "ſ", "Σ", "İ", "ß", "\u212a", "\u07ff", "١"]


def real_texts() -> list[str]:
    rows = []
    for folder in ("heldout_sni", "heldout_gen", "heldout_mc"):
        for path in sorted((common.DATA / folder).glob("*.jsonl.zst")):
            rows += common.load_jsonl_zst(path)[:60]
    texts = []
    for row in rows:
        texts += [str(row.get("target", "")), str(row.get("input", "")), *map(str, row.get("choices", []))]
    return sorted({text[:LONGEST] for text in texts if text})


def assigned(text: str) -> str:
    """`text` without what Unicode 14, that of Python 3.11, does not know: later versions lower some of it."""
    return "".join(c for c in text if unicodedata.category(c) not in ("Cn", "Cs"))


def original(index: int, texts: list[str], rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(texts)
    if kind < 0.70:
        return random_text.text(SEED, index)[:60]
    if kind < 0.90:
        return rng.choice(["", "", " "]).join(rng.choice(TRICKY) for _ in range(rng.choice([1, 1, 2, 3])))
    number = rng.choice(["", "-", "$"]) + format(rng.randrange(10 ** rng.randint(1, 7)), rng.choice([",", "d"]))
    return rng.choice(["", "#### ", "The answer is ", "= "]) + number + rng.choice(["", "", ".", ".00", "%"])


def mutate(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    kind = rng.randrange(16)
    if kind < 4:
        return [text.upper(), text.lower(), text.swapcase(), text.title()][kind]
    if kind == 4:
        return text[:at] + rng.choice(string.punctuation) + text[at:]
    if kind == 5:
        return "".join(c for c in text if c not in string.punctuation)
    if kind == 6:
        return text[:at] + rng.choice(string.digits) + text[at:]
    if kind == 7:
        return "".join(c for c in text if c not in string.digits)
    if kind == 8:
        return rng.choice([text + rng.choice(SPACES), rng.choice(SPACES) + text])
    if kind == 9:
        return rng.choice(SPACES).join(text.split(" "))
    if kind == 10:
        return text + rng.choice(TAILS) * rng.choice([1, 1, 2])
    if kind == 11:
        return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC"]), text)
    if kind == 12:
        return text[:at] + rng.choice(TAILS) + text[at:]
    if kind == 13:
        return text.replace(",", "").replace("$", "").rstrip(".")
    return perturb(text, rng)


def pairs() -> list[tuple[str, str]]:
    texts = real_texts()
    found = list(EDGES) + [(a, b) for a in TRICKY[:12] for b in TRICKY[:12]]
    for index in range(len(found), COUNT):
        rng = random.Random(f"{SEED}/pair/{index}")
        target = assigned(original(index, texts, rng))
        prediction = target if rng.random() < 0.93 else assigned(original(index + COUNT, texts, rng))
        for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
            prediction = assigned(mutate(prediction, rng))
        found.append((target, prediction) if rng.random() < 0.5 else (prediction, target))
    return found


def normalized(text: str) -> str:
    """As Natural Instructions' evaluation: lower case, no punctuation, single spaces; articles stay."""
    kept = [c for c in text.lower() if c not in string.punctuation]
    return " ".join("".join(kept).split())


def main() -> None:
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    rows = []
    for target, prediction in pairs():
        f = scorer.score(target, prediction)["rougeL"].fmeasure
        rows.append([target, prediction, f, int(normalized(target) == normalized(prediction))])
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    packed = subprocess.run(["zstd", "--ultra", "-22", "-c", "-q"], input=text.encode(), check=True, capture_output=True).stdout
    PATH.write_bytes(packed)
    print(len(rows), "pairs,", len(packed), "bytes; normalised equal:", sum(row[3] for row in rows),
          "F of 0, of 1:", sum(row[2] == 0 for row in rows), sum(row[2] == 1 for row in rows))


if __name__ == "__main__":
    main()
