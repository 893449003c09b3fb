"""Multinomial logistic regression by scikit-learn -> tests/golden/task_predictor.

    .venv/bin/python scripts/golden/make_task_predictor.py
"""

from __future__ import annotations

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import common

FOLDER = common.GOLDEN / "task_predictor"
CASES = {"overlapping-c1": (3.0, 1.0), "overlapping-c0.01": (3.0, 0.01), "separable-c10": (0.3, 10.0)}


def main() -> None:
    generator = numpy.random.default_rng(51)
    centres = 2 * generator.standard_normal((4, 6))
    label = generator.integers(0, 4, 80)
    tensors = {"labels": label.astype(numpy.int64)}
    for name, (noise, c) in CASES.items():
        x = centres[label] + noise * generator.standard_normal((80, 6))
        x[:, 4] = 1000 + 50 * x[:, 4]  # another unit
        x[:, 5] = 7  # says nothing
        unseen = centres[generator.integers(0, 4, 20)] + noise * generator.standard_normal((20, 6))
        unseen[:, 4] = 1000 + 50 * unseen[:, 4]
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(C=c, tol=1e-12, max_iter=100000).fit(scaler.transform(x), label)
        tensors |= {
            f"{name}.features": x, f"{name}.unseen": unseen, f"{name}.mean": scaler.mean_, f"{name}.scale": scaler.scale_,
            f"{name}.weight": model.coef_, f"{name}.probabilities": model.predict_proba(scaler.transform(unseen)),
        }
        print(name, f"{model.n_iter_[0]} iterations, training accuracy {model.score(scaler.transform(x), label):.3f}")
    common.save_tensors(FOLDER / "cases.safetensors", tensors)
    print(common.versions("scikit-learn", "numpy"))


if __name__ == "__main__":
    main()
