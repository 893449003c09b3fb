"""From the study's results to tables, claims and figures: README.md, results.json and SVG files in one folder."""

import json
import math
import pathlib

import plots
from statistics95 import Samples, interval, show, show_difference

UP, SNI, CHOICE = "train", "instruction", "choice"

# (label, name in the samples) in the order of the paper's table 1 and figure 3, then what came after.
METHODS = [
    ("Base", "main/base"), ("Full fine-tuning", "full/base"), ("Shared", "main/shared"), ("Shared, parameters matched", "matched/shared"), ("Poly, mean", "main/poly-mean"),
    ("MHR, mean", "main/mhr-mean"), ("Private, mean", "main/private-mean"), ("Private, TP", "main/private-task-predictor"),
    ("Private, CM", "main/private-centroids"), ("Private, Arrow", "main/private-arrow"), ("Private, oracle", "main/private-oracle"),
    ("MBC, mean", "mbc/cluster-mean"), ("MBC, TP", "mbc/cluster-task-predictor"), ("MBC, CM", "mbc/cluster-centroids"),
    ("MBC, Arrow", "mbc/cluster-arrow"), ("MBC, oracle", "mbc/cluster-oracle"), ("Poly, own task", "main/poly-oracle"),
    ("MHR, own task", "main/mhr-oracle"), ("Private, Phatgoose", "main/private-phatgoose"), ("Private, SpectR", "main/private-spectr"),
    ("Private, LAG", "main/private-lag"), ("Private, LAG or base", "main/private-lag-base"), ("Private, Arrow with mean", "main/private-arrow-mean"),
    ("Private, calibrated Arrow", "main/private-calibrated-arrow"),
    ("Private, gated Arrow", "main/private-gated-arrow"), ("Private, pooled Arrow", "main/private-pooled-arrow"), ("MBC, Arrow with mean", "mbc/cluster-arrow-mean"),
    ("MBC, calibrated Arrow", "mbc/cluster-calibrated-arrow"), ("MBC, gated Arrow", "mbc/cluster-gated-arrow"), ("MBC, LAG", "mbc/cluster-lag"),
    ("MBC, LAG or base", "mbc/cluster-lag-base"),
]
CLUSTERINGS = [("Random examples", "random-examples"), ("Random tasks", "random-tasks"), ("Hidden states", "hidden"), ("TF-IDF", "tf-idf"),
               ("MBC, factors", "mbc"), ("MBC, products", "mbc-products")]


def collect(results):
    samples = Samples()
    for seed in results["seeds"].values():
        for library, evaluation in seed["evaluations"].items():
            samples.add(evaluation["values"], lambda method: f"{library}/{method}")
    return samples


def table(head, rows, align="---:"):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] + [align] * (len(head) - 1)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def percent(pair):
    return pair if pair is None else (100 * pair[0], 100 * pair[1])


def table_1(samples):
    rows = []
    for label, name in METHODS:
        if name not in samples.methods(UP, "nll"):
            continue
        rows.append([label, show(samples.mean(UP, "nll", name)), show(percent(samples.mean(UP, "rouge_l", name)), 1),
                     show(samples.mean(SNI, "nll", name)), show(percent(samples.mean(SNI, "rouge_l", name)), 1),
                     show(percent(samples.mean(CHOICE, "acc", name)), 1)])
    return table(["method", "own tasks: NLL ↓", "Rouge-L ↑", "held-out SNI: NLL ↓", "Rouge-L ↑", "multiple choice ↑"], rows)


def figure_4(results, samples):
    ks = sorted({*results["settings"]["sweep"], results["settings"]["clusters"]})
    rows, points = [], []
    for k in ks:
        library = "mbc" if k == results["settings"]["clusters"] else f"mbc-{k}"
        mean, arrow = f"{library}/cluster-mean", f"{library}/cluster-arrow"
        if mean not in samples.methods(UP, "nll"):
            continue
        acc = percent(samples.mean(CHOICE, "acc", mean))
        rows.append([str(k), show(samples.mean(UP, "nll", mean)), show(samples.mean(UP, "nll", arrow)), show(acc, 1),
                     show(percent(samples.mean(CHOICE, "acc", arrow)), 1), show(samples.mean(SNI, "nll", mean))])
        points.append((k, samples.mean(UP, "nll", mean)[0], samples.mean(UP, "nll", arrow)[0]))
    return table(["K", "own tasks: mean, NLL ↓", "Arrow, NLL ↓", "multiple choice: mean ↑", "Arrow ↑", "held-out SNI: mean, NLL ↓"], rows), points


def table_2(results, samples):
    rows = []
    for label, library in CLUSTERINGS:
        cosines = [seed["libraries"].get(f"cosine {library}") for seed in results["seeds"].values()]
        cosines = [c for c in cosines if c is not None]
        name = f"{library}/cluster-mean"
        if name not in samples.methods(UP, "nll"):
            continue
        rows.append([label, show(samples.mean(UP, "nll", name)), show(percent(samples.mean(CHOICE, "acc", name)), 1), show(samples.mean(SNI, "nll", name)),
                     show(samples.mean(UP, "nll", f"{library}/cluster-arrow")), f"{sum(cosines) / len(cosines):.2f}" if cosines else "–"])
    return table(["clustering", "own tasks: mean, NLL ↓", "multiple choice: mean ↑", "held-out SNI: mean, NLL ↓", "own tasks: Arrow, NLL ↓",
                  "cosine of the cluster adapters"], rows)


def adaptation_samples(results):
    samples = Samples()
    for seed in results["seeds"].values():
        for key, result in seed["adaptations"].items():
            rows, _, label = key.split("/", 2)
            samples.add(result, lambda _: f"{rows}/{label}")
    return samples


def table_3(results, samples):
    labels = []
    for seed in results["seeds"].values():
        for key in seed["adaptations"]:
            label = key.split("/", 2)[2]
            if label not in labels:
                labels.append(label)
    labels.sort(key=lambda label: label != "Base")
    shares = results["settings"]["adapt_rows"]
    rows = []
    for label in labels:
        cells = [label]
        for share in shares:
            name = f"{0 if label == 'Base' else share}/{label}"
            cells += [show(percent(samples.mean(SNI, "rouge_l", name)), 1), show(samples.mean(SNI, "nll", name))]
        rows.append(cells)
    return table(["method"] + sum(([f"{share} rows: Rouge-L ↑", "NLL ↓"] for share in shares), []), rows)


def routing_table(results):
    rows = []
    for method in ("arrow", "calibrated-arrow", "lag"):
        figures = [seed["analyses"][f"routing {method}"]["mean"] for seed in results["seeds"].values()]
        mean = {key: sum(f[key] for f in figures) / len(figures) for key in figures[0] if figures[0][key] is not None}
        rows.append([method] + [f"{mean[key]:.3f}" for key in ("relative_entropy", "margin", "agreement", "true_share")])
    return table(["private adapters, own tasks", "entropy / ln N", "margin", "agreement of projections", "share of the right adapter"], rows)


class Claims:
    """Each with the paper's figures, ours, and whether it held: yes or no where the interval excludes 0, else open."""

    def __init__(self, samples, adapted):
        self.samples, self.adapted, self.rows = samples, adapted, []

    def compare(self, claim, source, section, metric, better, worse, samples=None):
        """`better` ahead of `worse` in the metric."""
        difference = (samples or self.samples).difference(section, metric, better, worse)
        if difference is None:
            return
        mean, half = difference
        sign = -1 if metric == "nll" else 1
        held = "open" if math.isnan(half) or abs(mean) <= half else ("**yes**" if sign * mean > 0 else "**no**")
        scale = 1 if metric == "nll" else 100
        unit = {"nll": "NLL", "rouge_l": "Rouge-L", "acc": "accuracy"}[metric]
        self.rows.append([claim, source, f"{unit} {show_difference((scale * mean, scale * half), 2 if metric == 'nll' else 1)}", held])

    def add(self, claim, source, ours, held):
        self.rows.append([claim, source, ours, {True: "**yes**", False: "**no**", None: "open"}[held]])


def claims(results, samples, adapted, pairs, ratios):
    c = Claims(samples, adapted)
    name = dict(METHODS)
    c.compare("Private: Arrow beats the mean on the library's own tasks", "Fig. 3: 56.9 against 25.4", UP, "nll", name["Private, Arrow"], name["Private, mean"])
    c.compare("Private: Arrow beats the mean there, in Rouge-L", "Fig. 3", UP, "rouge_l", name["Private, Arrow"], name["Private, mean"])
    c.compare("Private: the oracle beats Arrow there", "Fig. 3: 61.6 against 56.9", UP, "nll", name["Private, oracle"], name["Private, Arrow"])
    means = [samples.mean(UP, "nll", name[m])[0] for m in ("Private, mean", "Private, Arrow", "Private, oracle")]
    share = (means[0] - means[1]) / (means[0] - means[2]) if means[0] != means[2] else math.nan
    c.add("Arrow recovers most of the way from mean to oracle", "87 % (Rouge-L, 256 tasks)", f"{100 * share:.0f} % (NLL)", share > 0.5)
    c.compare("MBC: Arrow beats the mean on the own tasks", "Fig. 3: 51.6 against 39.8", UP, "nll", name["MBC, Arrow"], name["MBC, mean"])
    c.compare("The mean of MBC beats the mean of private adapters", "Fig. 3: 39.8 against 25.4", UP, "nll", name["MBC, mean"], name["Private, mean"])
    c.compare("Downstream, Private with Arrow beats the base", "Table 1: 66.6 against 63.8", CHOICE, "acc", name["Private, Arrow"], name["Base"])
    c.compare("Downstream, Private with Arrow beats its mean", "Table 1: 66.6 against 64.8", CHOICE, "acc", name["Private, Arrow"], name["Private, mean"])
    c.compare("Downstream, the mean of MBC beats Shared", "Table 1: 67.1 against 65.5", CHOICE, "acc", name["MBC, mean"], name["Shared"])
    c.compare("Downstream, the mean of MBC beats that of Poly", "Table 1: 67.1 against 65.7", CHOICE, "acc", name["MBC, mean"], name["Poly, mean"])
    c.compare("Downstream, MBC with Arrow beats its mean", "Table 1: 67.4 against 67.1 (Phi-2)", CHOICE, "acc", name["MBC, Arrow"], name["MBC, mean"])
    c.compare("Held-out SNI: the mean of MBC beats Arrow", "Table 5: 44.4 against 36.7", SNI, "rouge_l", name["MBC, mean"], name["MBC, Arrow"])
    c.compare("Held-out SNI: the mean of MBC beats Arrow, in NLL", "Table 5", SNI, "nll", name["MBC, mean"], name["MBC, Arrow"])
    c.compare("Held-out SNI: the mean of MBC beats the base", "Table 5: 44.4 against 22.2", SNI, "rouge_l", name["MBC, mean"], name["Base"])
    c.compare("MBC beats random tasks (mean)", "Table 2: 67.1 against 66.4", CHOICE, "acc", "mbc/cluster-mean", "random-tasks/cluster-mean")
    c.compare("MBC beats random tasks on the own tasks (Arrow)", "–", UP, "nll", "mbc/cluster-arrow", "random-tasks/cluster-arrow")
    c.compare("MBC beats hidden states (mean)", "Table 2: 66.7 against 66.1, 1 epoch", CHOICE, "acc", "mbc/cluster-mean", "hidden/cluster-mean")
    if pairs:
        correlations = [p["correlation"] for p in pairs]
        lows = [p["interval"][0] for p in pairs if p["interval"]]
        held = None if not lows or min(lows) <= 0 else True
        c.add("Adapters that are alike help each other", "Fig. 2: r = 0.51 (Phi-2), 0.75 (GPT-Neo)", ", ".join(f"r = {r:.2f}" for r in correlations), held)
    above = sum(r > 1 for r in ratios) / max(len(ratios), 1)
    if ratios:
        c.add("The own adapter's update is the largest, for nearly all inputs", "Fig. 5: all ratios above 1", f"{100 * above:.0f} % of {len(ratios)}", above > 0.9)
    for rows in results["settings"]["adapt_rows"]:
        for better, worse, source in (("MBC, mean", "No library", "Table 3: 78.8 against 75.5; 10 %: 67.0 against 53.9"),
                                      ("MBC, Poly", "MBC, mean", "Table 3: 78.8 against 78.8; 10 %: 68.2 against 67.0"),
                                      ("MBC, Poly", "MBC, PolyZ", "Table 6: 78.9 against 45.3; 10 %: 68.8 against 45.2"),
                                      ("MBC, PolyZ", "MBC, LoraHub", "Table 6: 45.3 against 45.3"),
                                      ("MBC, weights by gradient", "MBC, LoraHub", "–")):
            c.compare(f"{rows} rows: {better} beats {worse}", source, SNI, "nll", f"{rows}/{better}", f"{rows}/{worse}", samples=adapted)
    ours = []
    for better, worse in (("Private, LAG", "Private, Arrow"), ("MBC, LAG", "MBC, Arrow"), ("Private, calibrated Arrow", "Private, Arrow"),
                          ("MBC, calibrated Arrow", "MBC, Arrow"), ("Private, gated Arrow", "Private, Arrow"), ("MBC, gated Arrow", "MBC, Arrow"), ("Private, Arrow with mean", "Private, Arrow"), ("MBC, Arrow with mean", "MBC, Arrow")):
        ours.append((better, worse))
    for better, worse in (("Private, LAG or base", "Private, LAG"), ("MBC, LAG or base", "MBC, LAG"), ("Private, LAG or base", "Base")):
        ours.append((better, worse))
    own = Claims(samples, adapted)
    for better, worse in ours:
        own.compare(f"{better} beats {worse}, own tasks", "Quiver", UP, "nll", name[better], name[worse])
        own.compare(f"{better} beats {worse}, held-out SNI", "Quiver", SNI, "nll", name[better], name[worse])
        if "or base" in better:  # what it is for: answers
            own.compare(f"{better} beats {worse}, own tasks", "Quiver", UP, "rouge_l", name[better], name[worse])
            own.compare(f"{better} beats {worse}, held-out SNI", "Quiver", SNI, "rouge_l", name[better], name[worse])
        own.compare(f"{better} beats {worse}, multiple choice", "Quiver", CHOICE, "acc", name[better], name[worse])
    head = ["claim", "the paper", "here, difference [95 %]", "held"]
    return table(head, c.rows, "---"), table(head, own.rows, "---")


def budget_table(results):
    totals, minutes = {}, {}
    for seed in results["seeds"].values():
        for name, cost in seed["libraries"].items():
            if isinstance(cost, dict):
                total = totals.setdefault(name, [0, 0])
                total[0] += cost["steps"]
                total[1] += cost["tokens"]
        for verb, seconds in seed["seconds"].items():
            minutes[verb] = minutes.get(verb, 0) + seconds / 60
    return (table(["trained (all seeds)", "steps", "tokens"], [[name, str(t[0]), f"{t[1]:,}"] for name, t in totals.items()]) + "\n"
            + table(["the program (all seeds)", "processor minutes"], [[verb, f"{spent:.0f}"] for verb, spent in minutes.items()]))


def machine_text(machine):
    if machine.get("gpu", "no") != "no":
        return f"{machine['gpu']}, in bfloat16"
    return f"{machine.get('cpu', 'this machine')}, {machine.get('threads', '?')} threads, bfloat16 in hardware: {machine.get('bf16 in hardware', '?')}"


def head_text(results, seeds):
    s = results["settings"]
    hours = sum(sum(seed["seconds"].values()) for seed in seeds) / 3600
    machines = sorted({machine_text(seed["machine"]) for seed in seeds})
    command = {"full": "make study", "half": "make study", "small": "make study-small", "all": "make study-all"}.get(results["size"], "study/study.py")
    tasks = f"all {len(results['tasks'])} tasks of data/train" if s["families"] == 0 else f"{len(results['tasks'])} tasks ({len(results['tasks']) // 2} pairs of neighbours)"
    done = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}" + ("" if len(seeds) == len(s["seeds"]) else f" **of {len(s['seeds'])}: the study is not finished**")
    missing = "".join(f"\n**Not finished: {seed['missing']}**\n" for seed in seeds if "missing" in seed)
    return f"""# Study, {results["size"]}

Made by `{command}` (study/study.py), which goes on where it was when it is killed. {tasks[0].upper() + tasks[1:]}, {s["examples"]} training rows each,
{s["epochs"]} epochs (MBC: 40 % of them for the private adapters, 60 % for the clusters'), batch {s.get("batch", 8)}, learning rate {s.get("rate", "3e-3")} (shared adapters {s.get("shared_rate", "3e-3")}), {"the base's chat template" if s.get("prompts") == "chat" else "bare text"}, rank 4, alpha 16 on q, k, v, o of
SmolLM2-135M-Instruct; K = {s["clusters"]}; {done}. Evaluated on {s["train_rows"]} test rows of each task, {s["sni_rows"]} of each of 12 held-out SNI tasks,
{s["choice_rows"]} of each of 7 multiple-choice sets. {hours:.1f} processor hours of the program on {"; ".join(machines)}.
{missing}
Intervals are Student's t, 95 %, over rows, each averaged over the seeds; differences are paired by row. They say what these rows say: rows of one task
are alike, and other tasks would vary more. NLL: mean negative log-likelihood per token of the target, EOS included.
"""


def adaptation_text(results, adapted):
    count = results["settings"]["adapt_tasks"]
    return (f"Best epoch by validation rows; {count} held-out SNI task{'s' if count > 1 else ''} a seed, with each seed another.\n\n"
            + table_3(results, adapted))


def transfer_text(pairs, out):
    plots.scatter([(p["cosine"], p["gain"]) for t in pairs for p in t["pairs"]], "cosine of the private adapters", "gain of training on both (nats a label)", out / "figure2.svg")
    shown = [f"r = {p['correlation']:.2f}" + (f" [{p['interval'][0]:.2f}, {p['interval'][1]:.2f}]" if p["interval"] else "") for p in pairs]
    return f"{', '.join(shown)}, {len(pairs[0]['pairs'])} pairs{' a seed' if len(pairs) > 1 else ''}.\n\n![figure 2](figure2.svg)\n"


def norms_text(ratios, out):
    plots.histogram(ratios, "norm of the own adapter's update over that of another", out / "figure5.svg")
    above = 100 * sum(r > 1 for r in ratios) / len(ratios)
    return f"Mean ratio {interval(ratios)[0]:.3f}, above 1 for {above:.0f} % of {len(ratios)} prompts.\n\n![figure 5](figure5.svg)\n"


def write(results, out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    samples, adapted = collect(results), adaptation_samples(results)
    seeds = list(results["seeds"].values())
    pairs = [seed["analyses"]["transfer"] for seed in seeds if "transfer" in seed["analyses"]]
    ratios = [r for seed in seeds if "norms" in seed["analyses"] for t in seed["analyses"]["norms"]["tasks"] for r in t["ratios"]]
    paper, own = claims(results, samples, adapted, pairs, ratios)
    sections = [("What the paper claims, and whether it held here", paper + '\n"open": the interval holds 0.\n'),
                ("Table 1, table 5 and figure 3: building by routing", table_1(samples))]
    sweep, points = figure_4(results, samples)
    if len(points) > 1:
        plots.lines(points, ("mean", "Arrow"), "number of clusters", "NLL on the own tasks", out / "figure4.svg")
        sections += [("Figure 4: the number of clusters", f"{sweep}\n![figure 4](figure4.svg)\n"), ("Table 2: what is clustered", table_2(results, samples))]
    if any(seed["adaptations"] for seed in seeds):
        sections.append(("Tables 3 and 6: adapting with some rows of a new task", adaptation_text(results, adapted)))
    if pairs:
        sections.append(("Figure 2: likeness and transfer", transfer_text(pairs, out)))
    if ratios:
        sections.append(("Figure 5: whose update is larger", norms_text(ratios, out)))
        sections.append(("How routing decides", routing_table(results)))
    sections += [("The default, and ideas of our own", own), ("What it took", budget_table(results))]
    text = head_text(results, seeds) + "".join(f"\n## {title}\n\n{body}" for title, body in sections)
    (out / "README.md").write_text(text)
    compact = {k: v for k, v in results.items() if k != "seeds"}
    compact["summary"] = [
        {"section": section, "metric": metric, "method": method, "mean": samples.mean(section, metric, method)[0], "half_width_95": samples.mean(section, metric, method)[1]}
        for (section, metric), methods in sorted(samples.values.items()) for method in sorted(methods)]
    compact["adaptation"] = [
        {"metric": metric, "method": method, "mean": adapted.mean(section, metric, method)[0], "half_width_95": adapted.mean(section, metric, method)[1]}
        for (section, metric), methods in sorted(adapted.values.items()) for method in sorted(methods)]
    compact["seeds"] = {seed: {"analyses": r["analyses"]} for seed, r in results["seeds"].items()}
    (out / "results.json").write_text(json.dumps(compact, indent=1) + "\n")
