"""What lm-evaluation-harness asks by the task files of tests/golden/lm_eval_tasks -> cases.json there.

    .venv-clients/bin/python scripts/golden/make_lm_eval_tasks.py
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "lm_eval_tasks"


def label_of(task, doc: dict, num_choices: int) -> int:
    """The choice that is right, as the task's own scoring says."""
    right = []
    for choice in range(num_choices):
        results = [(0.0 if i == choice else -1.0, False) for i in range(num_choices)]
        if task.process_results(doc, results)["acc"] == 1.0:
            right.append(choice)
    assert len(right) == 1, (doc, right)
    return right[0]


def references_of(task, doc: dict) -> list:
    """What an answer is compared with."""
    seen = []

    def capture(references, predictions, **_):
        seen.extend(references)
        return {"exact_match": 0.0}

    metrics = task._metric_fn_list
    task._metric_fn_list = {"exact_match": capture}
    task.process_results(doc, ["answer"])
    task._metric_fn_list = metrics
    return seen


def case_of(name: str, task) -> dict:
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    rows: dict = {}
    for instance in task.instances:
        row = rows.setdefault(instance.doc_id, {"requests": [], "doc": instance.doc})
        row["requests"].append(list(instance.args))
    case = {"task": name, "output_type": task.OUTPUT_TYPE, "version": str(task.VERSION), "metrics": list(task._metric_fn_list), "rows": []}
    for index in sorted(rows):
        row, doc = rows[index], rows[index].pop("doc")
        if task.OUTPUT_TYPE == "multiple_choice":
            row["choices"] = list(task.doc_to_choice(doc))
            row["label"] = label_of(task, doc, len(row["requests"]))
        else:
            row["references"] = references_of(task, doc)
        case["rows"].append(row)
    return case


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(HF_HOME=cache, HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", LMEVAL_LOG_LEVEL="ERROR")
        os.chdir(FOLDER)
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks._yaml_loader import load_yaml

        cases = []
        for path in sorted(FOLDER.glob("*.yaml")):
            config = load_yaml(path)
            cases.append(case_of(path.stem, ConfigurableTask(config=config)))
    (FOLDER / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (FOLDER / "README.md").write_text(
        f"""# Golden values: tasks of lm-evaluation-harness

Small task files, small data, and `cases.json`: what lm-eval {importlib.metadata.version("lm-eval")} asks by them (Python {platform.python_version()},
datasets {importlib.metadata.version("datasets")}, jinja2 {importlib.metadata.version("jinja2")}). The rows are made up. Each row has the `requests`, pairs of context and continuation
or of context and settings; of choices the `label`, of answers the `references`. No seed, no tolerance: texts are equal.

    .venv-clients/bin/python scripts/golden/make_lm_eval_tasks.py
"""
    )


if __name__ == "__main__":
    main()
