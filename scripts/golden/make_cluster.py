"""Model-based clustering (MBC) stage by stage in NumPy and scikit-learn -> tests/golden/cluster.

    .venv/bin/python scripts/golden/make_cluster.py
"""

from __future__ import annotations

import numpy
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import common

FOLDER = common.GOLDEN / "cluster"
RANK, D_IN, D_OUT = 2, 24, 20
PROJECTIONS = [f"layers.{layer}.self_attn.{name}" for layer in range(2) for name in ("q_proj", "v_proj")]


def planted(generator) -> tuple[dict, list]:
    """24 adapters around four centres, group sizes 9, 7, 5, 3, in shuffled order; a common part in all."""
    group = numpy.repeat(numpy.arange(4), [9, 7, 5, 3])
    generator.shuffle(group)
    tensors = {}
    for path in PROJECTIONS:
        for factor, shape in (("lora_a", (RANK, D_IN)), ("lora_b", (D_OUT, RANK))):
            common_part, centres = generator.standard_normal(shape), generator.standard_normal((4, *shape))
            for i, g in enumerate(group):
                value = 0.6 * common_part + centres[g] + 0.8 * generator.standard_normal(shape)
                tensors[f"{i:02d}.{path}.{factor}"] = value.astype(numpy.float32)
    return tensors, group.tolist()


def unstructured(generator) -> tuple[dict, None]:
    """30 adapters without groups: independent values of unequal size."""
    tensors = {}
    for i in range(30):
        size = generator.uniform(0.2, 3.0)
        for path in PROJECTIONS:
            for factor, shape in (("lora_a", (RANK, D_IN)), ("lora_b", (D_OUT, RANK))):
                tensors[f"{i:02d}.{path}.{factor}"] = (size * generator.standard_t(4, shape)).astype(numpy.float32)
    return tensors, None


def vectors(tensors: dict) -> numpy.ndarray:
    """[T, D]: every adapter's factors as stored, flattened row by row, in the order of their names."""
    count = 1 + max(int(name[:2]) for name in tensors)
    rows = [[tensors[name].ravel() for name in sorted(tensors) if name.startswith(f"{i:02d}.")] for i in range(count)]
    return numpy.stack([numpy.concatenate(row) for row in rows]).astype(numpy.float64)


def stages(x: numpy.ndarray, sparsity: float, components: int, clusters: int) -> tuple[dict, dict]:
    """Sparsify, Gram, truncated SVD, row norms, cosine similarity, k-means on the rows of the similarity."""
    thresholds = numpy.array([numpy.quantile(numpy.abs(row), sparsity) for row in x])
    sparse = numpy.where(numpy.abs(x) > thresholds[:, None], x, 0.0)
    u, sigma, _ = numpy.linalg.svd(sparse, full_matrices=False)
    embedding = u[:, :components] * sigma[:components]
    unit = embedding / numpy.linalg.norm(embedding, axis=1, keepdims=True)
    similarity = unit @ unit.T
    kmeans = KMeans(n_clusters=clusters, init="k-means++", n_init=10, random_state=42, algorithm="lloyd")
    labels = kmeans.fit_predict(similarity)
    best = min(KMeans(n_clusters=clusters, n_init=200, random_state=s).fit(similarity).inertia_ for s in range(3))
    direct = KMeans(n_clusters=clusters, n_init=10, random_state=42).fit_predict(unit)
    tensors = {
        "thresholds": thresholds,
        "norms": numpy.linalg.norm(sparse, axis=1),
        "nonzeros": numpy.count_nonzero(sparse, axis=1).astype(numpy.int64),
        "gram": sparse @ sparse.T,
        "singular_values": sigma,
        "embedding": embedding,
        "similarity": similarity,
    }
    notes = {
        "sparsity": sparsity, "components": components, "num_clusters": clusters, "labels": labels.tolist(),
        "inertia": float(kmeans.inertia_), "best_inertia_of_600_starts": float(best),
        "agreement_with_kmeans_on_embeddings": float(adjusted_rand_score(labels, direct)),
    }
    return tensors, notes


def canonical(labels: list) -> list:
    """Labels renumbered by first appearance."""
    order = {}
    return [order.setdefault(label, len(order)) for label in labels]


def main() -> None:
    sets = {"planted": planted(numpy.random.default_rng(31)), "unstructured": unstructured(numpy.random.default_rng(32))}
    report = {}
    for name, (tensors, group) in sets.items():
        common.save_tensors(FOLDER / f"{name}.adapters.safetensors", tensors)
        x, results, cases = vectors(tensors), {}, {}
        for sparsity, components, clusters in ((0.5, 16, 4), (0.8, 8, 3), (0.0, len(x), 4)):
            key = f"s{sparsity}-c{components}-k{clusters}"
            out, notes = stages(x, sparsity, components, clusters)
            results |= {f"{key}.{stage}": value for stage, value in out.items()}
            notes["labels"] = canonical(notes["labels"])
            if group is not None and clusters == 4:
                assert adjusted_rand_score(group, notes["labels"]) == 1.0
            cases[key] = notes
            print(name, key, f"inertia {notes['inertia']:.6f}, best {notes['best_inertia_of_600_starts']:.6f}, "
                  f"against embeddings {notes['agreement_with_kmeans_on_embeddings']:.2f}")
        common.save_tensors(FOLDER / f"{name}.stages.safetensors", results)
        report[name] = {"num_adapters": len(x), "dimension": x.shape[1], "cases": cases}
        if group is not None:
            report[name]["planted_groups"] = canonical(group)
    common.save_json(FOLDER / "cases.json", report, indent=None)


if __name__ == "__main__":
    main()
