"""p-values and bootstrap intervals by SciPy and by their definitions in NumPy -> tests/golden/statistics.

    .venv/bin/python scripts/golden/make_statistics.py

Needs scripts/requirements-study.txt, for scipy.
"""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy
import scipy
from scipy import stats

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "statistics"
TABLES = [(0, 0), (0, 1), (1, 0), (3, 3), (0, 6), (1, 9), (10, 20), (25, 10), (4, 5), (120, 155), (900, 1010), (0, 60), (3000, 3100)]
DRAWS = 200_000


def mcnemar() -> list:
    """[only first, only second, exact p, mid-p]; mid-p in fractions (Fagerland et al. 2013, eq. 4)."""
    cases = []
    for first, second in TABLES:
        count, smaller = first + second, min(first, second)
        exact = stats.binomtest(smaller, count, 0.5).pvalue if count else 1.0
        below = Fraction(sum(comb(count, i) for i in range(smaller + 1)), 2**count)
        cases.append([first, second, float(exact), float(2 * below - Fraction(comb(count, smaller), 2**count))])
    return cases


def clustered_p(differences: numpy.ndarray, clusters: numpy.ndarray) -> float:
    """The variance of a mean with clusters (Cameron and Miller 2015), and t with G - 1 degrees of freedom."""
    mean, names = differences.mean(), numpy.unique(clusters)
    scores = numpy.array([(differences[clusters == name] - mean).sum() for name in names])
    error = numpy.sqrt(len(names) / (len(names) - 1) * (scores**2).sum()) / len(differences)
    return float(2 * stats.t.sf(abs(mean / error), len(names) - 1))


def holm(p_values: list) -> list:
    """The definition, without sorting: for each, the largest over all that are not larger."""
    def step(p: float) -> float:
        return min(1.0, sum(other >= p for other in p_values) * p)

    return [max(step(other) for other in p_values if other <= p) for p in p_values]


def exact_percentiles(values: list) -> list:
    """Of all n^n resamples, which are equally likely: the mean's 10 %, 50 % and 90 % points."""
    means = sorted(sum(draw) / len(values) for draw in itertools.product(values, repeat=len(values)))
    return [float(numpy.quantile(means, share)) for share in (0.1, 0.5, 0.9)]


def paired_samples() -> dict:
    generator = numpy.random.default_rng(17)
    rows, methods = 120, 5
    tasks = numpy.repeat(numpy.arange(12), [3, 20, 9, 10, 5, 14, 8, 12, 7, 11, 13, 8])
    hard = generator.exponential(1.0, rows)[:, None]
    effect = generator.normal(0, 0.25, (12, methods))[tasks]
    values = 2 + hard + effect + generator.normal(0, 0.4, (rows, methods)) + numpy.array([0, 0.02, -0.3, 0.15, -0.1])
    return {"tasks": tasks, "values": numpy.round(values, 4)}


def intervals(means: numpy.ndarray, draws: numpy.ndarray, pairs: list) -> dict:
    """Percentile intervals, and those of the largest |t| over all pairs."""
    estimate = numpy.array([means[a] - means[b] for a, b in pairs])
    found = numpy.stack([draws[:, a] - draws[:, b] for a, b in pairs], 1)
    deviation = found.std(0, ddof=1)
    reach = numpy.quantile((abs(found - estimate) / deviation).max(1), 0.95) * deviation
    low, high = numpy.quantile(found, [0.025, 0.975], axis=0)
    return {"low": low.tolist(), "high": high.tolist(), "simultaneous_low": (estimate - reach).tolist(),
            "simultaneous_high": (estimate + reach).tolist()}


def comparisons() -> dict:
    samples = paired_samples()
    tasks, values = samples["tasks"], samples["values"]
    pairs = list(itertools.combinations(range(values.shape[1]), 2))
    generator = numpy.random.default_rng(18)
    row_counts = generator.multinomial(len(values), numpy.full(len(values), 1 / len(values)), DRAWS)
    by_row = intervals(values.mean(0), row_counts @ values / len(values), pairs)
    sums = numpy.stack([values[tasks == task].sum(0) for task in range(12)])
    sizes = numpy.bincount(tasks)
    task_counts = generator.multinomial(12, numpy.full(12, 1 / 12), DRAWS)
    by_task = intervals(values.mean(0), (task_counts @ sums) / (task_counts @ sizes)[:, None], pairs)
    for part, tests in (
        (by_row, [float(stats.ttest_rel(values[:, a], values[:, b]).pvalue) for a, b in pairs]),
        (by_task, [clustered_p(values[:, a] - values[:, b], tasks) for a, b in pairs]),
    ):
        part["p"], part["corrected_p"] = tests, holm(tests)
    first, second = pairs[1]
    scipys = stats.bootstrap((values[:, first] - values[:, second],), numpy.mean, n_resamples=DRAWS, batch=10_000,
                             method="percentile", rng=numpy.random.default_rng(19)).confidence_interval
    assert abs(scipys.low - by_row["low"][1]) < 0.01 * (scipys.high - scipys.low), "the reference is not SciPy's bootstrap"
    return {"tasks": tasks.tolist(), "values": values.tolist(), "pairs": pairs, "by_row": by_row, "by_task": by_task}


def main() -> None:
    t_values = [(0.0, 4), (0.5, 1), (2.0, 2), (-2.5, 11), (3.3, 95), (12.0, 30), (-40.0, 6038), (1.96, 1e6)]
    document = {
        "mcnemar": mcnemar(),
        "student": [[t, degrees, float(2 * stats.t.sf(abs(t), degrees))] for t, degrees in t_values],
        "holm": [[p, holm(p)] for p in ([0.01, 0.04, 0.03, 0.005], [0.5], [0.02, 0.02, 0.9, 0.02], [1.0, 0.0, 0.3, 0.3, 0.01], [])],
        "all_resamples": {"values": [0.1, 0.7, 0.35, 2.0, -0.4, 0.9],
                          "percentiles": exact_percentiles([0.1, 0.7, 0.35, 2.0, -0.4, 0.9])},
        "comparisons": comparisons(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "cases.json").write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    print("scipy", scipy.__version__, "numpy", numpy.__version__)


if __name__ == "__main__":
    main()
