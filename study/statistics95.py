"""Means and paired differences over rows, with 95 % intervals by Student's t; rows are averaged over seeds first."""

import math

import numpy
import scipy.stats


def values_of(samples):
    """Of the samples of a results file what the tables need: {section: {metric: {method: {task: {id: value}}}}}."""
    values = {}
    for sample in samples:
        for metric in ("nll", "rouge_l", "acc"):
            if metric in sample:
                methods = values.setdefault(sample["section"], {}).setdefault(metric, {})
                methods.setdefault(sample["method"], {}).setdefault(sample["task"], {})[sample["id"]] = round(sample[metric], 5)
    return values


class Samples:
    """values[(section, metric)][method][(task, id)]: one number per seed."""

    def __init__(self):
        self.values = {}

    def add(self, values, rename):
        """What values_of returned."""
        for section, metrics in values.items():
            for metric, methods in metrics.items():
                for method, tasks in methods.items():
                    rows = self.values.setdefault((section, metric), {}).setdefault(rename(method), {})
                    for task, ids in tasks.items():
                        for row, value in ids.items():
                            rows.setdefault((task, row), []).append(value)

    def methods(self, section, metric):
        return self.values.get((section, metric), {})

    def rows(self, section, metric, method):
        return {key: sum(v) / len(v) for key, v in self.methods(section, metric).get(method, {}).items()}

    def mean(self, section, metric, method):
        """(mean, half width of its interval) or None."""
        return interval(list(self.rows(section, metric, method).values()))

    def difference(self, section, metric, method, other):
        """method - other over the rows that both have."""
        a, b = self.rows(section, metric, method), self.rows(section, metric, other)
        return interval([a[key] - b[key] for key in a if key in b])


def interval(values):
    values = numpy.asarray(values, dtype=float)
    if len(values) == 0:
        return None
    if len(values) == 1:
        return float(values[0]), math.nan
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def bootstrap(values, resamples=100_000, seed=0):
    """(low, high): the 2.5 and 97.5 percentiles of the mean of values drawn with replacement. Of a dozen values it is narrower than Student's interval,
    and holds the truth less often than it says."""
    values = numpy.asarray(values, dtype=float)
    draws = numpy.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = numpy.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def show(pair, digits=2):
    if pair is None:
        return "–"
    mean, half = pair
    return f"{mean:.{digits}f}" if math.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def show_bounds(pair, digits=2):
    mean, half = pair
    return f"[{mean - half:+.{digits}f}, {mean + half:+.{digits}f}]"


def show_difference(pair, digits=2):
    if pair is None:
        return "–"
    return f"{pair[0]:+.{digits}f} {show_bounds(pair, digits)}"
