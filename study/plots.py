"""The study's figures as SVG."""

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "quiver", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
import matplotlib.pyplot as pyplot  # noqa: E402  (after the choice of a backend)


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)


def scatter(points, x, y, path):
    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    axes.scatter([p[0] for p in points], [p[1] for p in points], s=18, color="#2b6cb0")
    axes.axhline(0, color="#999", linewidth=0.8)
    axes.set(xlabel=x, ylabel=y)
    save(figure, path)


def lines(points, names, x, y, path):
    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    for i, (name, color) in enumerate(zip(names, ("#2b6cb0", "#c05621"))):
        axes.plot([p[0] for p in points], [p[1 + i] for p in points], marker="o", label=name, color=color)
    axes.set(xlabel=x, ylabel=y, xticks=[p[0] for p in points])
    axes.legend(frameon=False)
    save(figure, path)


def histogram(values, x, path):
    figure, axes = pyplot.subplots(figsize=(5, 3.5))
    axes.hist(values, bins=24, color="#2b6cb0")
    axes.axvline(1, color="#c05621", linewidth=1)
    axes.set(xlabel=x, ylabel="prompts")
    save(figure, path)
