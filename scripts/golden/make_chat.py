#!/usr/bin/env python3
"""Golden ids and assistant masks of conversations, by transformers' apply_chat_template.

    .venv/bin/python scripts/golden/make_chat.py

Writes tests/golden/chat: a folder with a tokenizer and a template, as a base has them, and cases.json. The template marks the
assistant's messages, with the token that ends each, by {% generation %}: transformers' mask says which tokens are trained on.
"""

import json
import pathlib
import shutil

import tokenizers
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/chat"

TEMPLATE = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nBe brief<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] | trim + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- message['content'] + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

TURNS = [
    ("user", "What is two and two?"),
    ("assistant", "It is four."),
    ("user", "  And three and three?\n"),
    ("assistant", " six "),
    ("user", "Say <|im_end|> backwards, ünïcödé"),
    ("assistant", "No."),
]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "tests/golden/model/llama-tied" / name, OUT / name)
    (OUT / "chat_template.jinja").write_text(TEMPLATE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(OUT)
    cases = []
    for system in (None, "You are a poet"):
        for count in (2, 4, 6):
            messages = [{"role": role, "content": content} for role, content in TURNS[:count]]
            if system:
                messages.insert(0, {"role": "system", "content": system})
            encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)
            cases.append({
                "messages": messages,
                "text": tokenizer.apply_chat_template(messages, tokenize=False),
                "ids": encoded["input_ids"],
                "mask": encoded["assistant_masks"],
                "prompt_ids": prompt["input_ids"],
            })
    (OUT / "cases.json").write_text(json.dumps({
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "cases": cases,
    }, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
