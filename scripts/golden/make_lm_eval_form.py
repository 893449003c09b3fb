"""The members of the files that lm-evaluation-harness itself writes -> tests/golden/lm_eval_form/keys.json.

    .venv-clients/bin/python scripts/golden/make_lm_eval_form.py

Its "dummy" model, whose likelihoods are random, is evaluated on task files of tests/golden/lm_eval_tasks. The members and their types are
kept, not the values.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "tests" / "golden" / "lm_eval_tasks"
FOLDER = ROOT / "tests" / "golden" / "lm_eval_form"
NAMES = ("arc_like", "gsm_like", "boolq_like")


def shape(value, depth: int = 3):
    """A value with its members, down to a depth; of others the type."""
    if isinstance(value, dict) and depth > 0:
        return {key: shape(member, depth - 1) for key, member in sorted(value.items())}
    if isinstance(value, list) and value:
        return [shape(value[0], depth)]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(HF_HOME=cache, HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", LMEVAL_LOG_LEVEL="ERROR")
        os.chdir(TASKS)
        import lm_eval
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.tasks._yaml_loader import load_yaml

        tracker = EvaluationTracker(output_path=str(Path(cache) / "out"))
        tasks = [ConfigurableTask(config=load_yaml(TASKS / (name + ".yaml"))) for name in NAMES]
        for task, name in zip(tasks, NAMES):
            task.set_config("task", name)
        results = lm_eval.simple_evaluate(model="dummy", tasks=tasks, evaluation_tracker=tracker, log_samples=True, bootstrap_iters=10)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for name in results["configs"]:
            tracker.save_results_samples(task_name=name, samples=samples[name])
        out = Path(cache) / "out"
        files = sorted(path for path in out.rglob("*") if path.is_file())
        keys = {"files": [], "samples": {}}
        for path in files:
            keys["files"].append("MODEL/" + path.name.replace(tracker.date_id, "DATE"))
            if path.suffix == ".json":
                keys["results"] = shape(json.loads(path.read_text()))
            else:
                keys["samples"][path.name.removeprefix("samples_").split("_20")[0]] = shape(json.loads(path.read_text().split("\n")[0]))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "keys.json").write_text(json.dumps(keys, indent=1) + "\n", encoding="utf-8")
    (FOLDER / "README.md").write_text(
        f"""# Golden values: the files of lm-evaluation-harness

`keys.json`: the names, the members and their types of the files that lm-eval {importlib.metadata.version("lm-eval")} itself writes (Python
{platform.python_version()}, datasets {importlib.metadata.version("datasets")}), with its "dummy" model on task files of `../lm_eval_tasks`. Values are left out:
no seed, no tolerance.

    .venv-clients/bin/python scripts/golden/make_lm_eval_form.py
"""
    )


if __name__ == "__main__":
    main()
