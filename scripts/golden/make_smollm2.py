"""Logits, greedy tokens and scores of SmolLM2-135M-Instruct (GGUF, dequantised to fp32) -> tests/golden/smollm2.

    .venv/bin/python scripts/golden/make_smollm2.py        about five minutes on one core

The GGUF file is found at $QUIVER_SMOLLM2 or ~/.cache/quiver/SmolLM2-135M-Instruct.Q4_1.gguf.
"""

from __future__ import annotations

import hashlib
import random

import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaForCausalLM

import common

FOLDER = common.GOLDEN / "smollm2"
EOS = 2
TOP = 20
NUM_VOCABULARY_POSITIONS = 256
MC_SETS = ["arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa", "winogrande"]
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
DIFFICULT = [
    "", " ", "  two  spaces", "tabs\tand\n\nnew lines \r\n x", "don't they're we'll I'D you'VE", "3.14159 and 2026",
    "naïve façade, Ünïcode", "日本語のテキスト。", "emoji 🏹🎯 and flags 🇫🇮", "<|im_start|>user\nhello<|im_end|>\n",
    "a<|endoftext|>b", "non\u00a0breaking\u2003spaces", "e\u0301 combining", "\u0660\u0661 digits \u00bd ²³",
    "trailing space ", "trailing spaces   ", "snake_case CamelCase x=1; // ok", "...!!!??", "control\u007f\u0001",
    "Ελληνικά русский עברית العربية हिन्दी ไทย", "    indented code:\n\treturn x;\n", "100000000 1,000.5e-7 0x1F",
    "<reponame>a/b<gh_stars>12<filename>c.py", "'s 't ' d", "a\u200bzero\u200dwidth", "\ufeffbyte order mark",
]


def tokenizer_from_gguf(reader: gguf.GGUFReader) -> Tokenizer:
    """The published tokenizer: byte-level BPE, single digits before the GPT-2 pattern, control tokens special."""
    field = lambda name: reader.fields[f"tokenizer.ggml.{name}"].contents()
    tokens, kinds = field("tokens"), field("token_type")
    merges = [tuple(line.split(" ")) for line in field("merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def read_data() -> tuple[dict, list]:
    sets = {name: common.load_jsonl_zst(common.DATA / "heldout_mc" / f"{name}.jsonl.zst") for name in MC_SETS}
    files = sorted((common.DATA / "train").glob("*.jsonl.zst"))
    chosen = random.Random(3).sample(files, 24)
    return sets, [row for path in chosen for row in common.load_jsonl_zst(path)[:2]]


def prompts(sets: dict, rows: list) -> list:
    """Candidates in turn: multiple-choice contexts, training sources, chat turns."""
    mc = [sets[name][i]["context"].rstrip(" ") for i in range(4) for name in MC_SETS]
    train = [f"{row['instruction']}\n\n{row['input']}" for row in rows]
    chat = [CHAT.format(text) for text in ("What is the capital of France?", "Name three colours.",
                                           "Write one sentence about the sea.", "How many legs has a spider?",
                                           "Translate 'good morning' into French.", "What is 12 plus 30?")]
    return [(mc, 14), (train, 14), (chat, 4)]


def logit_golden(model, tokenizer: Tokenizer, groups: list) -> int:
    generator = torch.Generator().manual_seed(5)
    vocabulary = torch.randperm(model.config.vocab_size, generator=generator)[:NUM_VOCABULARY_POSITIONS].sort().values
    cases, tensors = [], {"vocabulary": vocabulary.to(torch.int32)}
    for candidates, wanted in groups:
        taken = 0
        for text in candidates:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if taken == wanted or not 4 <= len(ids) <= 160:
                continue
            tokens, margin = common.greedy(model, ids, 64)
            if EOS in tokens:
                tokens = tokens[: tokens.index(EOS) + 1]
            if margin < 2e-3:
                continue
            last = len(ids) - 1
            positions = sorted({last // 4, last // 2, 3 * last // 4, last})
            logits = common.logits_of(model, ids)[positions]
            top = logits.topk(TOP, dim=1)
            i = len(cases)
            tensors[f"{i}.top_ids"] = top.indices.to(torch.int32)
            tensors[f"{i}.top_logits"] = top.values
            tensors[f"{i}.logsumexp"] = logits.logsumexp(dim=1)
            tensors[f"{i}.logits"] = logits[:, vocabulary]
            cases.append({"text": text, "ids": ids, "positions": positions, "greedy": tokens,
                          "smallest_margin": round(margin, 5)})
            taken += 1
            if taken <= 2:
                print(repr(text[-60:]), "->", repr(tokenizer.decode(tokens)), flush=True)
        assert taken == wanted, (taken, wanted)
    common.save_json(FOLDER / "prompts.json", {"cases": cases}, indent=None)
    common.save_tensors(FOLDER / "logits.safetensors", tensors)
    return len(cases)


def score_requests(sets: dict, rows: list) -> list:
    """40 requests: every mode of the multiple-choice sets, targets of training rows, awkward boundaries."""
    pairs = []
    for name in MC_SETS:
        for row in sets[name][10:12]:
            for choice in row["choices"][:2]:
                if row["mode"] == "partial":
                    pairs.append((row["context"] + choice, " " + row["continuation"]))
                else:
                    pairs.append((row["context"], " " + choice))
    pairs = pairs[:26]
    short = [row for row in rows if len(row["input"]) < 300]
    pairs += [(f"{row['instruction']}\n\n{row['input']}", " " + row["target"]) for row in short[:5]]
    pairs += [
        ("The capital of France is ", "Paris"),
        ("The capital of France is  ", "Paris."),
        ("Hello wor", "lds apart"),
        ("1 2 3 4 5 6 7 8 9", " 10 11 12"),
        ("Café ", "naïve 🏹"),
        ("def add(a, b):\n    return a", " + b\n"),
        ("Answer:\n", "yes"),
        ("Once upon a time, there was a little girl named", " Lily. She loved to play."),
        ("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
         "The capital of France is Paris.<|im_end|>"),
    ]
    assert len(pairs) == 40, len(pairs)
    return [{"id": f"r{i:02d}", "context": c, "continuation": t} for i, (c, t) in enumerate(pairs)]


@torch.no_grad()
def score(model, tokenizer: Tokenizer, request: dict) -> dict:
    """The lm-eval rule: white space ending the context moves; both are tokenised as one text."""
    context, continuation = request["context"], request["continuation"]
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    whole = tokenizer.encode(kept + continuation, add_special_tokens=False).ids
    split = len(tokenizer.encode(kept, add_special_tokens=False).ids)
    logp = common.logits_of(model, whole).double().log_softmax(dim=1)[split - 1 : -1]
    target = torch.tensor(whole[split:])
    token_logprobs = logp.gather(1, target[:, None])[:, 0]
    return {
        "context_tokens": split,
        "continuation_ids": whole[split:],
        "logprob": round(float(token_logprobs.sum()), 6),
        "token_logprobs": [round(float(x), 6) for x in token_logprobs],
        "is_greedy": bool((logp.argmax(dim=1) == target).all()),
    }


def main() -> None:
    common.single_threaded()
    path = common.smollm2_path()
    reader = gguf.GGUFReader(str(path))
    tokenizer = tokenizer_from_gguf(reader)
    model = LlamaForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    expected = torch.from_numpy(gguf.dequantize(embedding.data, embedding.tensor_type))
    assert torch.equal(model.model.embed_tokens.weight, expected)

    sets, rows = read_data()
    texts = DIFFICULT + [row["input"] for row in rows] + [row["choices"][0] for s in sets.values() for row in s[:4]]
    cases = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    common.save_json(FOLDER / "tokenizer.json", {"cases": cases}, indent=None)
    theirs = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    differ = [c["text"] for c in cases if theirs.encode(c["text"], add_special_tokens=False) != c["ids"]]
    print(f"transformers' own GGUF tokenizer differs on {len(differ)} of {len(cases)}: {differ[:3]}")

    requests = [dict(request, **score(model, tokenizer, request)) for request in score_requests(sets, rows)]
    common.save_json(FOLDER / "scores.json", {"requests": requests})
    print("greedy:", sum(r["is_greedy"] for r in requests), "of", len(requests))
    print(logit_golden(model, tokenizer, prompts(sets, rows)), "prompts")
    print("sha256", hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
