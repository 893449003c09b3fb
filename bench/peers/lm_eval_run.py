"""Peer benchmark: lm-evaluation-harness 0.4.13 over local files, with transformers.

    .venv/bin/python bench/peers/lm_eval_run.py --pack PACK --sets arc_easy piqa --dtype fp32 --threads 2 --batch 16

PACK is a folder like data/: heldout_mc/SET.jsonl, and texts/NAME.jsonl with rows {"id", "text"}. The harness itself lies in .venv-clients; torch and
transformers come from .venv. Prints one JSON object: per task the samples (id, log-likelihoods or answer, metrics) and the results, and the seconds
that the harness took without loading the model.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_UPDATE_DOWNLOAD_COUNTS="0", TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1",
                  LMEVAL_LOG_LEVEL="ERROR")

import peers

for site in sorted((peers.ROOT / ".venv-clients/lib").glob("python3*/site-packages")):
    sys.path.append(str(site))  # behind .venv's own packages

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: {text}
doc_to_choice: {choices}
doc_to_target: {target}
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
ANSWER = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{source}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: {until}, max_gen_toks: {tokens}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
TEXT = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{{metric: word_perplexity}}, {{metric: byte_perplexity}}, {{metric: bits_per_byte}}]
"""


def arguments():
    parser = peers.parser(__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True, help="the folder of tasks")
    parser.add_argument("--sets", nargs="*", default=[], help="sets of questions with options")
    parser.add_argument("--folder-of-sets", default="heldout_mc", help="of the pack")
    parser.add_argument("--answers", nargs="*", default=[], help="tasks of heldout_sni, whose answers are generated")
    parser.add_argument("--texts", nargs="*", default=[], help="tasks of texts, whose rolling log-likelihoods are wanted")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of a sequence")
    parser.add_argument("--until", nargs="*", default=["\n\n"], help="what ends an answer")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="a Hugging Face folder in place of the GGUF file")
    parser.add_argument("--chat", action="store_true", help="with the chat template")
    return parser.parse_args()


def write_tasks(options, folder: Path) -> list:
    names = []
    for name in options.sets:
        file = options.pack / options.folder_of_sets / f"{name}.jsonl"
        first = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
        form = dict(text="context", choices="choices", target="label")
        if first["mode"] == "partial":  # contexts differ, and the harness takes the right one's number for the text
            form = dict(text="label", choices='"{{[context + choices[0], context + choices[1]]}}"', target="continuation")
        (folder / f"{name}.yaml").write_text(CHOICE.format(name=name, file=file, **form), encoding="utf-8")
        names.append(name)
    for name in options.answers:
        file = options.pack / f"heldout_sni/{name}.jsonl"
        text = ANSWER.format(name=name, file=file, until=json.dumps(options.until), tokens=options.max_new_tokens)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        names.append(name)
    for name in options.texts:
        (folder / f"{name}.yaml").write_text(TEXT.format(name=name, file=options.pack / f"texts/{name}.jsonl"), encoding="utf-8")
        names.append(name)
    return names


def load_model(options):
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    if options.folder:
        import torch

        torch.set_num_threads(options.threads)
        model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=peers.DTYPES[options.dtype])
        tokenizer = AutoTokenizer.from_pretrained(options.folder)
    else:
        import gguf

        model, inner = peers.load(options)
        fields = gguf.GGUFReader(str(options.base)).fields
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>")
        tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch, device="cpu", max_length=options.max_length)


def shortened(sample: dict) -> dict:
    responses = [response[0] for response in sample["resps"]]
    scores = [response[0] if isinstance(response, (list, tuple)) else response for response in responses]
    metrics = {name: sample[name] for name in sample["metrics"]}
    return {"id": sample["doc"]["id"], "responses": scores, **metrics}


def main():
    options = arguments()
    import lm_eval
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        os.environ["HF_HOME"] = folder + "/hub"
        names = write_tasks(options, Path(folder))
        with contextlib.redirect_stdout(nowhere):
            model = load_model(options)
            start = time.perf_counter()
            found = lm_eval.simple_evaluate(model=model, tasks=names, bootstrap_iters=0, apply_chat_template=options.chat,
                                            task_manager=TaskManager(include_path=folder, include_defaults=False))
            seconds = time.perf_counter() - start
    samples = {name: [shortened(sample) for sample in sorted(found["samples"][name], key=lambda one: one["doc_id"])] for name in names}
    options.folder = str(options.folder) if options.folder else None
    peers.report(options, seconds=seconds, lm_eval=lm_eval.__version__, samples=samples, results=found["results"])


if __name__ == "__main__":
    main()
