"""Tiny models of every GGUF architecture, as Hugging Face folders and as the files that llama.cpp's converter makes of them
-> tests/golden/gguf_models. What of a file makes a description is a seed of the fuzzer, too -> fuzz/corpus/gguf_config.

    .venv/bin/python scripts/golden/make_gguf_models.py [CASE ...]

The cases are those of make_families.py, smaller, without what a GGUF file cannot say. `write` is the converter's part for these families.
"""

from __future__ import annotations

import math
import re
import shutil
import sys

import gguf
import numpy
import torch
import transformers
from make_families import CASES as FAMILIES, make_model

import common

VOCAB, LENGTH = 41, 24
OUT = common.GOLDEN / "gguf_models"
SEEDS = common.ROOT / "fuzz" / "corpus" / "gguf_config"
DESCRIBES = re.compile(r"token_embd.weight|output\.(weight|bias)|blk\.0\.(.*\.bias|ffn_norm.weight)")
SIZES = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.3, beta_fast=16, beta_slow=2)


def smaller(name: str, **changes) -> dict:
    """A case of make_families.py in heads of 8."""
    config = dict(FAMILIES[name])
    for key, value in SIZES.items():
        if key in config:
            config[key] = value
    return config | changes


CASES = {
    "llama": smaller("llama", head_dim=12),
    "llama-llama3": smaller("llama-llama3"),
    "llama-linear": smaller("llama-linear"),
    "llama-yarn": smaller("llama-yarn", rope_scaling=YARN),
    "llama-fused": smaller("llama"),
    "qwen2": smaller("qwen2"),
    "qwen3": smaller("qwen3", head_dim=12),
    "smollm3": smaller("smollm3", num_hidden_layers=4),
    "granite": smaller("granite"),
    "olmo2": smaller("olmo2"),
    "phi": smaller("phi", num_key_value_heads=2),
    "phi-fused": smaller("phi", num_key_value_heads=2),
    "phi3": smaller("phi3"),
    "phi3-long": smaller("phi3-long"),
    "stablelm": smaller("stablelm"),
    "stablelm-parallel": smaller("stablelm-parallel"),
    "gpt_neox": smaller("gpt_neox", rotary_pct=0.5, rotary_emb_base=10000),
    "gpt_neox-sequential": smaller("gpt_neox-sequential"),
    "gpt2": smaller("gpt2", n_embd=16, n_layer=2, n_head=2, n_inner=64),
    "gemma": smaller("gemma", head_dim=12),
    "gemma2": smaller("gemma2", head_dim=12, query_pre_attn_scalar=12),
    "gemma3_text": smaller("gemma3_text", head_dim=12, query_pre_attn_scalar=12, num_hidden_layers=6, sliding_window_pattern=6),
}
FUSED = ("llama-fused", "phi-fused")  # by the converter's option --fuse-qkv, and as old files of Phi-2 are
IN_PIECES = ("llama",)
ARCHITECTURE = {"phi": "phi2", "gpt_neox": "gptneox", "gemma3_text": "gemma3"}
PAIRED = ("llama", "smollm3", "granite")

# Names in the file, and in the folder within a block or outside.
LLAMA = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
AFTER = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
FOUR_NORMS = LLAMA | AFTER | {"ffn_norm": "pre_feedforward_layernorm"}
NAMES = {
    "gemma2": FOUR_NORMS,
    "gemma3_text": FOUR_NORMS,
    "olmo2": {key: value for key, value in LLAMA.items() if key not in ("attn_norm", "ffn_norm")} | AFTER,
    "phi3": LLAMA | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    "phi": LLAMA | {"output_norm": "model.final_layernorm", "attn_output": "self_attn.dense", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"},
    "gpt_neox": {
        "token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out", "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm", "attn_qkv": "attention.query_key_value", "attn_output": "attention.dense",
        "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
    },
    "gpt2": {
        "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f", "attn_norm": "ln_1",
        "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
    },
}  # fmt: skip
BLOCKS = {"gpt_neox": "gpt_neox.layers.", "gpt2": "transformer.h."}
OUTSIDE = ("token_embd", "position_embd", "output_norm", "output")


def paired(values, heads: int):
    """Rows (h, p, i) of [heads, 2, E / 2] to (h, i, p)."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def by_part(values, heads: int):
    """Rows of [heads, 3, E] to [3, heads, E]."""
    return values.reshape(heads, 3, -1, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)


def file_name(name: str, family: str) -> str | None:
    """The name in the file; None for a tensor that is left out."""
    stem, kind = name.rsplit(".", 1)
    names = {hf: key for key, hf in NAMES.get(family, LLAMA).items()}
    if stem in names:
        return f"{names[stem]}.{kind}"
    layer, inner = stem.removeprefix(BLOCKS.get(family, "model.layers.")).split(".", 1)
    return f"blk.{layer}.{names[inner]}.{kind}"


def changed(name: str, values, family: str, config):
    """The values as the file has them."""
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if family in PAIRED and ".attn_q." in name:
        return paired(values, heads)
    if family in PAIRED and ".attn_k." in name:
        return paired(values, kv_heads)
    if family == "gpt_neox" and ".attn_qkv." in name:
        return by_part(values, heads)
    if family.startswith("gemma") and "norm." in name:
        return values + 1
    if family == "gpt2" and name.startswith("blk.") and values.dim() == 2:
        return values.t().contiguous()
    return values


def fused(tensors: dict) -> dict:
    """With one tensor for q, k and v in each block."""
    done = {}
    for name, values in tensors.items():
        if any(part in name for part in (".attn_k.", ".attn_v.")):
            continue
        if ".attn_q." in name:
            parts = [tensors[name.replace(".attn_q.", part)] for part in (".attn_q.", ".attn_k.", ".attn_v.")]
            done[name.replace(".attn_q.", ".attn_qkv.")] = torch.cat(parts)
        else:
            done[name] = values
    return done


def llama3_divisors(rope: dict, head_dim: int):
    """1 where a wave is short, the factor where it is long, between them a blend of the inverses."""
    divisors = []
    for i in range(head_dim // 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (2 * i / head_dim)
        original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = min(max((original / wave - low) / (high - low), 0), 1)
        divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return torch.tensor(divisors)


def write_rope(writer, family: str, config, head_dim: int, extra: dict) -> None:
    rope = config.rope_parameters
    if family == "gemma3_text":
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    if not family.startswith(("gemma", "qwen", "olmo2")):
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
    if family not in ("phi", "gpt_neox", "stablelm", "gemma", "gemma2"):
        writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if rope["rope_type"] == "llama3":
        extra["rope_freqs.weight"] = llama3_divisors(rope, head_dim)
    if rope["rope_type"] == "longrope":
        original = config.original_max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        extra["rope_factors_long.weight"] = torch.tensor(rope["long_factor"])
        extra["rope_factors_short.weight"] = torch.tensor(rope["short_factor"])


def write_keys(writer, family: str, config, extra: dict) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.n_inner if family == "gpt2" else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if family not in ("gpt2", "gpt_neox"):
        writer.add_head_count_kv(config.num_key_value_heads)
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(getattr(config, "layer_norm_eps", None) or config.layer_norm_epsilon)
    if family != "gpt2":
        write_rope(writer, family, config, head_dim, extra)
    if family in ("gpt_neox", "stablelm"):
        writer.add_parallel_residual(config.use_parallel_residual)
    if family in ("phi3", "gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window or 0)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if family in ("gemma2", "gemma3_text"):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if family == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def write(name: str, model) -> None:
    config, family = model.config, model.config.model_type
    pieces = dict(split_max_tensors=10) if name in IN_PIECES else {}
    writer = gguf.GGUFWriter(OUT / name / "model.gguf", ARCHITECTURE.get(family, family), **pieces)
    extra: dict = {}
    writer.add_name(name)
    write_keys(writer, family, config, extra)
    tensors = {}
    for key, values in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        in_file = file_name(key.replace("lm_head", "embed_out") if family == "gpt_neox" else key, family)
        tensors[in_file] = changed(in_file, values, family, config)
    if name in FUSED:
        tensors = fused(tensors)
    write_tensors(writer, extra | tensors)
    writer = gguf.GGUFWriter(SEEDS / name, ARCHITECTURE.get(family, family))
    write_keys(writer, family, config, {})
    write_tensors(writer, extra | {key: values.new_zeros([1] * values.dim()) for key, values in tensors.items() if DESCRIBES.fullmatch(key)})


def write_tensors(writer, tensors: dict) -> None:
    for key, values in tensors.items():
        if values.dim() == 1:
            writer.add_tensor(key, values.float().numpy())
        else:
            bits = values.bfloat16().contiguous().view(torch.uint16).numpy().view(numpy.uint8)
            writer.add_tensor(key, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name: str, config: dict) -> None:
    seed = 1
    model = make_model(config, seed)
    tokens = torch.randint(3, VOCAB, (LENGTH,), generator=torch.Generator().manual_seed(seed)).tolist()
    logits = common.logits_of(model, tokens)
    assert math.isfinite(float(logits.abs().max()))
    shutil.rmtree(OUT / name, ignore_errors=True)
    (OUT / name).mkdir(parents=True)
    write(name, model)
    model.bfloat16().save_pretrained(str(OUT / name))
    (OUT / name / "generation_config.json").unlink(missing_ok=True)
    (OUT / name / "model.safetensors").chmod(0o644)
    common.save_json(OUT / name / "golden.json", {"seed": seed, "tokens": tokens}, None)
    common.save_tensors(OUT / name / "golden.safetensors", {"logits": logits})
    size = sum(file.stat().st_size for file in (OUT / name).glob("*"))
    print(f"{name:20} logits to {float(logits.abs().max()):6.1f}, {size} bytes", flush=True)


README = """# Golden values: tiny models in GGUF

Made by `scripts/golden/make_gguf_models.py` with {versions} (CPU, one thread, eager attention). Weights are random values of bfloat16.

Each folder is a case, twice the same model:

* `config.json`, `model.safetensors`: as the hub would hold it.
* `model.gguf`, or its pieces `model-0000N-of-0000M.gguf`: as llama.cpp's converter would write it, matrices in BF16.
* `golden.json`, `golden.safetensors`: `tokens` (24), and their `logits` [24, 41] by transformers.

llama.cpp's own converter, of the package llama-cpp-python 0.3.36, makes the same tensors and keys of these folders, but for
`rope_freqs` (it takes 8192 for the original context whatever the folder says) and `phi2.feed_forward_length` (always 4 d).

Tolerances, of the largest logit: 1e-5 in float64. Weights of both forms are equal.
"""


def main() -> None:
    transformers.logging.set_verbosity_error()
    common.single_threaded()
    wanted = sys.argv[1:] or list(CASES)
    for name, config in CASES.items():
        if name in wanted:
            make(name, config)
    (OUT / "README.md").write_text(README.format(versions=common.versions("torch", "transformers", "gguf", "numpy")))


if __name__ == "__main__":
    main()
