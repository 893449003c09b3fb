"""Static merges of LoRA adapters by PEFT and by plain NumPy -> tests/golden/merges.

    .venv/bin/python scripts/golden/make_merges.py

PEFT merges two bare Linears; NumPy follows the formulas of the papers on dense updates.
"""

from __future__ import annotations

import unittest.mock
import warnings

import numpy
import torch
from peft import ArrowConfig, LoraConfig, get_peft_model
from peft.tuners.lora.arrow import ArrowLoraLinearLayer

import common

FOLDER = common.GOLDEN / "merges"
SEED = 41
PATHS = {"layers.0.self_attn.q_proj": (12, 10), "layers.0.self_attn.v_proj": (12, 7)}  # d_in, d_out
RANKS = {"a": 3, "b": 3, "c": 3, "d": 5}
ALPHAS = {"a": 6.0, "b": 6.0, "c": 6.0, "d": 4.0}
EQUAL, ALL = ["a", "b", "c"], ["a", "b", "c", "d"]
WEIGHTS, ALL_WEIGHTS = [0.7, 0.5, -0.4], [0.7, 0.5, -0.4, 0.9]
DENSITY = 0.4


def random_factors() -> dict:
    """{adapter: {path: (lora_a, lora_b)}}, fp32. The factors of a, b and c are half common, as of one start."""
    generator = numpy.random.default_rng(SEED)
    shared = {path: (generator.standard_normal((3, d_in)), generator.standard_normal((d_out, 3)))
              for path, (d_in, d_out) in PATHS.items()}
    factors = {}
    for name, rank in RANKS.items():
        factors[name] = {}
        for path, (d_in, d_out) in PATHS.items():
            a, b = generator.standard_normal((rank, d_in)), generator.standard_normal((d_out, rank))
            if rank == 3:
                a, b = a + shared[path][0] / 2, b + shared[path][1] / 2
            factors[name][path] = (a.astype(numpy.float32) / 4, b.astype(numpy.float32) / 4)
    return factors


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for path, (d_in, d_out) in PATHS.items():
            setattr(self, path.rpartition(".")[2], torch.nn.Linear(d_in, d_out, bias=False))


class Layers(torch.nn.Module):
    """Linears under the paths of PATHS."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Module()])
        self.layers[0].self_attn = Attention()


def peft_model(factors: dict):
    def config(name):
        return LoraConfig(r=RANKS[name], lora_alpha=ALPHAS[name], target_modules=["q_proj", "v_proj"])

    model = get_peft_model(Layers(), config("a"), adapter_name="a")
    for name in ALL[1:]:
        model.add_adapter(name, config(name))
    for path in PATHS:
        module = model.base_model.model.get_submodule(path)
        for name in ALL:
            a, b = factors[name][path]
            module.lora_A[name].weight.data = torch.from_numpy(a)
            module.lora_B[name].weight.data = torch.from_numpy(b)
    return model


def by_peft(factors: dict) -> dict:
    """Every combination_type: <case>.<path>.lora_a and .lora_b; the masks of DARE as <case>.<adapter>.<path>.mask_a and .mask_b."""
    model, tensors = peft_model(factors), {}
    generator = numpy.random.default_rng([SEED, 1])

    def add(case, names, weights, **options):
        masks = []

        def draw(probabilities):
            masks.append(torch.from_numpy((generator.random(probabilities.shape) < probabilities.numpy()).astype(numpy.float32)))
            return masks[-1]

        with unittest.mock.patch("torch.bernoulli", draw):
            model.add_weighted_adapter(names, weights, case.replace("-", "_"), **options)
        for path in PATHS:
            module = model.base_model.model.get_submodule(path)
            tensors[f"{case}.{path}.lora_a"] = module.lora_A[case.replace("-", "_")].weight
            tensors[f"{case}.{path}.lora_b"] = module.lora_B[case.replace("-", "_")].weight
            assert module.scaling[case.replace("-", "_")] == 1
            for factor in ("a", "b") if masks else ():  # PEFT takes the modules in order, A before B
                for name in names:
                    tensors[f"{case}.{name}.{path}.mask_{factor}"] = masks.pop(0)
        assert not masks

    add("linear", EQUAL, WEIGHTS, combination_type="linear")
    add("linear-one", ["b"], [-0.5], combination_type="ties", density=DENSITY)
    add("cat", ALL, ALL_WEIGHTS, combination_type="cat")
    for rank in (2, 5):
        add(f"svd-{rank}", ALL, ALL_WEIGHTS, combination_type="svd", svd_rank=rank)
    for sign in ("total", "frequency"):
        add(f"ties-{sign}", EQUAL, WEIGHTS, combination_type="ties", density=DENSITY, majority_sign_method=sign)
        add(f"dare_ties-{sign}", EQUAL, WEIGHTS, combination_type="dare_ties", density=DENSITY, majority_sign_method=sign)
    add("dare_linear", EQUAL, WEIGHTS, combination_type="dare_linear", density=DENSITY)
    add("magnitude_prune", EQUAL, WEIGHTS, combination_type="magnitude_prune", density=DENSITY)
    return tensors


def general_knowledge_subtraction(factors: dict) -> dict:
    """a less the mean of b and c, by PEFT's Arrow layer."""
    tensors = {}
    for path, (d_in, d_out) in PATHS.items():
        config = ArrowConfig(use_gks=True)
        config.task_adapter_names, config.gks_adapter_names = ["a"], ["b", "c"]
        lora_a, lora_b = torch.nn.ModuleDict(), torch.nn.ModuleDict()
        for name in EQUAL:
            lora_a[name], lora_b[name] = torch.nn.Linear(d_in, 3, bias=False), torch.nn.Linear(3, d_out, bias=False)
            lora_a[name].weight.data = torch.from_numpy(factors[name][path][0].copy())
            lora_b[name].weight.data = torch.from_numpy(factors[name][path][1].copy())
        ArrowLoraLinearLayer(d_in, config).gen_know_sub(lora_a, lora_b)
        tensors[f"gks.{path}.lora_a"], tensors[f"gks.{path}.lora_b"] = lora_a["a"].weight, lora_b["a"].weight
    return tensors


def delta(factors: dict, name: str, path: str) -> numpy.ndarray:
    a, b = (factor.astype(numpy.float64) for factor in factors[name][path])
    return ALPHAS[name] / RANKS[name] * (b @ a)


def elect_and_average(rows: numpy.ndarray) -> numpy.ndarray:
    """rows [n, D]: the mean of the entries that have the sign of the sum."""
    agrees = (numpy.sign(rows) == numpy.sign(rows.sum(0))) & (rows != 0)
    return (rows * agrees).sum(0) / numpy.maximum(agrees.sum(0), 1)


def ties(rows: numpy.ndarray, density: float) -> numpy.ndarray:
    """rows [n, D], each a whole adapter: trim, elect, merge."""
    thresholds = numpy.quantile(numpy.abs(rows), 1 - density, axis=1, keepdims=True)
    return elect_and_average(numpy.where(numpy.abs(rows) >= thresholds, rows, 0))


def ties_of_factors(factors: dict, density: float) -> dict:
    shapes = [(f"{path}.{which}", factors["a"][path][i].shape) for path in PATHS for i, which in enumerate(("lora_a", "lora_b"))]
    rows = numpy.stack([numpy.concatenate([factor.astype(numpy.float64).ravel() for path in PATHS for factor in factors[name][path]])
                        for name in EQUAL])
    merged, tensors, start = ties(rows, density), {}, 0
    for key, shape in shapes:
        size = int(numpy.prod(shape))
        tensors[f"mttl-ties-{density}.{key}"] = merged[start:start + size].reshape(shape)
        start += size
    return tensors


def knots(factors: dict, density: float) -> dict:
    """U times TIES of the S V_i^T, the dense updates side by side."""
    bases, parts = {}, {name: [] for name in ALL}
    for path, (d_in, _) in PATHS.items():
        u, s, vt = numpy.linalg.svd(numpy.concatenate([delta(factors, name, path) for name in ALL], axis=1), full_matrices=False)
        kept = s > 1e-10 * s[0]
        bases[path] = u[:, kept]
        for i, name in enumerate(ALL):
            parts[name].append(s[kept, None] * vt[kept, i * d_in:(i + 1) * d_in])
    merged = ties(numpy.stack([numpy.concatenate([part.ravel() for part in parts[name]]) for name in ALL]), density)
    tensors, start = {}, 0
    for path, part in zip(PATHS, parts["a"]):
        tensors[f"knots-ties-{density}.{path}.delta"] = bases[path] @ merged[start:start + part.size].reshape(part.shape)
        start += part.size
    return tensors


def wudi_objective(tau: numpy.ndarray, tasks: list) -> float:
    return sum(numpy.linalg.norm((tau - task) @ task.T) ** 2 / numpy.linalg.norm(task) ** 2 for task in tasks)


def wudi_gradient(tau: numpy.ndarray, tasks: list) -> numpy.ndarray:
    return sum(2 * (tau - task) @ task.T @ task / numpy.linalg.norm(task) ** 2 for task in tasks)


def adam(tasks: list, steps: int, rate: float) -> numpy.ndarray:
    """From the sum of the updates, as WUDI and mttl do it."""
    tau = sum(tasks)
    mean, square = numpy.zeros_like(tau), numpy.zeros_like(tau)
    for step in range(1, steps + 1):
        gradient = wudi_gradient(tau, tasks)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient ** 2
        tau = tau - rate * (mean / (1 - 0.9 ** step)) / (numpy.sqrt(square / (1 - 0.999 ** step)) + 1e-8)
    return tau


def descent(tasks: list) -> numpy.ndarray:
    """Gradient descent from the sum until it stands still."""
    tau = sum(tasks)
    curvature = sum(2 * task.T @ task / numpy.linalg.norm(task) ** 2 for task in tasks)
    rate = 1 / numpy.linalg.eigvalsh(curvature)[-1]
    for _ in range(400_000):
        gradient = wudi_gradient(tau, tasks)
        if numpy.abs(gradient).max() < 1e-14:
            return tau
        tau = tau - rate * gradient
    raise RuntimeError("gradient descent did not converge")


def wudi(factors: dict) -> dict:
    tensors = {}
    for path in PATHS:
        tasks = [delta(factors, name, path) for name in ALL]
        solution = descent(tasks)
        objectives = [wudi_objective(tau, tasks)
                      for tau in (sum(tasks), adam(tasks, 300, 1e-5), adam(tasks, 300, 1e-3), adam(tasks, 3000, 1e-3), solution)]
        print(f"WUDI {path}: objectives of the sum, Adam 300 x 1e-5, 300 x 1e-3, 3000 x 1e-3, descent:", *(f"{o:.3e}" for o in objectives))
        tensors[f"wudi.{path}.delta"] = solution
        tensors[f"wudi.{path}.objectives"] = numpy.array(objectives)
    return tensors


def main() -> None:
    common.single_threaded()
    warnings.filterwarnings("ignore")
    factors = random_factors()
    inputs = {f"{name}.{path}.lora_{which}": factor for name, paths in factors.items() for path, pair in paths.items()
              for which, factor in zip("ab", pair)}
    common.save_tensors(FOLDER / "adapters.safetensors", inputs)
    common.save_tensors(FOLDER / "peft.safetensors", by_peft(factors) | general_knowledge_subtraction(factors))
    formulas = wudi(factors)
    for density in (0.2, 0.5, 1.0):
        formulas |= ties_of_factors(factors, density) | knots(factors, density)
    common.save_tensors(FOLDER / "numpy.safetensors", formulas)
    settings = {"ranks": RANKS, "alphas": ALPHAS, "weights": dict(zip(ALL, ALL_WEIGHTS)), "density": DENSITY, "seed": SEED}
    common.save_json(FOLDER / "settings.json", settings)


if __name__ == "__main__":
    main()
