"""LoraHub's search, nevergrad's NGOpt, on functions of 10 numbers -> tests/golden/search.

    .venv/bin/pip install nevergrad==1.0.12   # not among the requirements: this script alone needs it
    .venv/bin/python scripts/golden/make_search.py
"""

from __future__ import annotations

import nevergrad
import numpy

import common

FOLDER = common.GOLDEN / "search"
SIZE, BOUND = 10, 1.5
BUDGETS = (30, 120)
INDEX = numpy.arange(SIZE)
FUNCTIONS = {
    "weighted-squares": lambda x: float(((INDEX + 1) * (x - numpy.where(INDEX % 2 == 1, 1, -0.7)) ** 2).sum()),
    "rosenbrock": lambda x: float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()),
    "distances": lambda x: float(numpy.abs(x - 0.3 * (INDEX % 3)).sum()),
}


def searched(function, budget):
    """The points that are evaluated and their values."""
    start = nevergrad.p.Array(init=[0] * SIZE, upper=[BOUND] * SIZE, lower=[-BOUND] * SIZE)  # as LoraHub has it
    optimizer = nevergrad.optimizers.NGOpt(parametrization=start, budget=budget)
    points, values = [], []

    def evaluate(x):
        points.append(x.copy())
        values.append(function(x))
        return values[-1]

    optimizer.minimize(evaluate)
    return optimizer.optim.name, numpy.array(points), numpy.array(values)


def main() -> None:
    tensors = {}
    for name, function in FUNCTIONS.items():
        best = []
        for budget in BUDGETS:
            chosen, points, values = searched(function, budget)
            best.append(values.min())
            print(name, budget, chosen, values.min())
        tensors |= {f"{name}.simplex": points[: SIZE + 1], f"{name}.simplex_values": values[: SIZE + 1], f"{name}.best": numpy.array(best)}
    common.save_tensors(FOLDER / "cases.safetensors", tensors)
    print(common.versions("nevergrad", "scipy", "numpy"))


if __name__ == "__main__":
    main()
