"""TF-IDF vectors of short texts by scikit-learn's TfidfVectorizer with its defaults -> tests/golden/tf_idf.

    .venv/bin/python scripts/golden/make_tf_idf.py
"""

from __future__ import annotations

from sklearn.feature_extraction.text import TfidfVectorizer

import common

FOLDER = common.GOLDEN / "tf_idf"

TEXTS = [
    "Is the answer in the text? The answer is in the text.",
    "Classify the sentiment of the review as positive or negative.",
    "The movie was great, great, GREAT fun!",
    "a I x 7 ? !",  # single characters only: an empty row
    "",
    "Don't stop: it's 2024, and 3.14 isn't 22/7.",
    "snake_case __dunder__ _x x_ e-mail user@example.com",
    "Café naïve coöperate ÉCOLE École",
    "cafe\u0301 combining acute",  # the mark ends the word
    "ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ ΣΑΣ ΣΑΣΑ ΑΣ1 Σ ΑΣ",
    "İstanbul IĞDIR ISPARTA straße STRASSE ẞß",
    "Привет, МИР! Ёлка и ель",
    "日本語のテキスト 中文 文本 한국어 텍스트",
    "हिन्दी में पाठ",
    "العربية نص عربي ١٢٣",
    "x² y³ H₂O ½ ¼cup Ⅷ ⅷ ①②",
    "the\tquick\nbrown\u00a0fox\u2003jumps\u200bover",
    "emoji 😀😀 flags 🇫🇷 and ﬁne ligatures ﬀ",
    "Question: what is the capital of France? Answer: Paris. Paris is the capital.",
    "premise hypothesis entailment premise neutral contradiction premise",
]
UNSEEN = ["The capital of the review: unseen words only here", "nothing known", "great ΑΣ cafe STRASSE the the the"]


def rows(matrix) -> list:
    """[[index, value], ...] of each row, by index."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    return [[[int(i), float(v)] for i, v in zip(row.indices, row.data)] for row in matrix]


def main() -> None:
    vectorizer = TfidfVectorizer()
    fitted = vectorizer.fit_transform(TEXTS)
    analyze = vectorizer.build_analyzer()
    unseen = vectorizer.transform(UNSEEN)
    report = {
        "texts": TEXTS, "unseen": UNSEEN, "words": [analyze(text) for text in TEXTS + UNSEEN],
        "terms": vectorizer.get_feature_names_out().tolist(), "idf": vectorizer.idf_.tolist(),
        "rows": rows(fitted), "unseen_rows": rows(unseen), "cosines": (unseen @ fitted.T).toarray().tolist(),
    }
    common.save_json(FOLDER / "cases.json", report, indent=None)
    print(len(TEXTS), "texts,", len(report["terms"]), "terms;", common.versions("scikit-learn", "numpy"))


if __name__ == "__main__":
    main()
