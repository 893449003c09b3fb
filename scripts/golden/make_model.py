"""Tiny random Llama models with golden logits and greedy continuations -> tests/golden/model.

    .venv/bin/python scripts/golden/make_model.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Q
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

import common

VOCAB = 320
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = [
    "A library of adapters answers more questions than any single one of them.",
    "The archer chose an arrow from the quiver, and the arrow chose the target.",
    "Question: which of these animals is the largest? Answer: the whale.",
    "There are 12 tasks, 96 adapters and 10 clusters in the library.",
    "Every token goes to the adapters whose prototype it resembles most.",
    "The answer to the question is in the text; read the text and answer the question.",
    "Is the review positive or negative? The review is positive.",
]
PROMPTS = [
    "The archer",
    "Question: what is 7 times 8?\nAnswer:",
    "Every token goes to the adapters whose prototype it resembles most. The answer to the question",
]
LONG_PROMPT = "There are 12 tasks, 96 adapters and 10 clusters in the library. The library answers questions. " * 2


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE built like SmolLM2's: single digits, then the GPT-2 pattern."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def randomise(model, seed: int) -> None:
    """Weights wide enough that attention and logits vary: fan-in scaled, norms off 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
            elif "embed_tokens" in name or "lm_head" in name:
                weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
            else:
                weight.copy_(1.3 * torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5)


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    common.save_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": SPECIALS[1],
            "eos_token": SPECIALS[2],
            "pad_token": SPECIALS[2],
            "unk_token": SPECIALS[0],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 256,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def golden(name: str, model, tokenizer: Tokenizer, prompts: list) -> bool:
    """Ids, logits of all positions and 64 greedy tokens per prompt, beside the model's folder.

    False (and nothing written) if a greedy continuation meets EOS or a near tie, which rounding could turn.
    """
    cases, tensors = [], {}
    for i, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        tokens, margin = common.greedy(model, ids, 64)
        if margin < 5e-3 or 2 in tokens:
            return False
        tensors[f"logits.{i}"] = common.logits_of(model, ids)
        cases.append({"text": prompt, "ids": ids, "greedy": tokens, "smallest_margin": round(margin, 5)})
    common.save_json(common.MODELS / f"{name}.golden.json", {"cases": cases}, indent=None)
    common.save_tensors(common.MODELS / f"{name}.golden.safetensors", tensors)
    spread = torch.cat([t.flatten() for t in tensors.values()]).std()
    margins = [case["smallest_margin"] for case in cases]
    print(f"{name}: logit spread {spread:.2f}, margins {margins}")
    return True


def old_style(config: dict) -> dict:
    """The config.json of transformers before 5: rope_theta and rope_scaling at the top level."""
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    if kind == "llama3":
        config["rope_scaling"] = {"rope_type": kind, **rope}
    elif kind == "linear":
        config["rope_scaling"] = {"type": kind, **rope}  # the oldest spelling
    else:
        config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.45.0"
    return config


def build(name, tokenizer, prompts, old_config, dtype=torch.float32, shard=None, **options):
    """Makes, saves, reloads and records one model folder; returns the reloaded model. Seeds are tried in turn."""
    folder = common.MODELS / name
    config = LlamaConfig(
        vocab_size=VOCAB, bos_token_id=1, eos_token_id=2, pad_token_id=2, max_position_embeddings=256, **options
    )
    for seed in range(11, 200):
        shutil.rmtree(folder, ignore_errors=True)
        model = LlamaForCausalLM(config)
        randomise(model, seed)
        model.to(dtype).save_pretrained(str(folder), **({"max_shard_size": shard} if shard else {}))
        for weights in folder.glob("*.safetensors"):
            weights.chmod(0o644)
        write_tokenizer(folder, tokenizer)
        if old_config:
            common.save_json(folder / "config.json", old_style(json.loads((folder / "config.json").read_text())), 2)
        reloaded = common.load_llama(name)
        for key, value in reloaded.state_dict().items():
            assert torch.equal(value, model.state_dict()[key].float()), key
        frequencies = LlamaForCausalLM(config).model.rotary_emb.inv_freq
        assert torch.equal(reloaded.model.rotary_emb.inv_freq, frequencies)
        if golden(name, reloaded, tokenizer, prompts):
            print(f"  seed {seed}")
            return reloaded
    raise RuntimeError(f"no seed gives {name} clear greedy continuations")


def permute(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of q or k from the half-split order of transformers to llama.cpp's interleaved order."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def unpermute(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_tensors(model):
    """(GGUF name, transformers name, heads to permute or 0) of every stored tensor."""
    config = model.config
    yield "token_embd.weight", "model.embed_tokens.weight", 0
    yield "output_norm.weight", "model.norm.weight", 0
    for layer in range(config.num_hidden_layers):
        for ours, theirs in GGUF_NAMES.items():
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(theirs, 0)
            yield f"blk.{layer}.{theirs}.weight", f"model.layers.{layer}.{ours}.weight", heads


def gguf_header(writer: gguf.GGUFWriter, config, tokenizer: Tokenizer) -> None:
    writer.add_name("Quiver tiny Llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_quantization_version(2)
    inside = json.loads(tokenizer.to_str())
    vocabulary = sorted(inside["model"]["vocab"], key=inside["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in inside["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)


def write_gguf(name: str, model, tokenizer: Tokenizer) -> None:
    """The tied model as GGUF with every matrix in another type; golden logits are of the dequantised weights."""
    cycle = [Q.Q4_1, Q.Q4_0, Q.F16, Q.BF16, Q.Q8_0, Q.F32]
    writer = gguf.GGUFWriter(str(common.MODELS / f"{name}.gguf"), "llama")
    gguf_header(writer, model.config, tokenizer)
    state, used, matrices = model.state_dict(), {}, 0
    for theirs, ours, heads in gguf_tensors(model):
        value = state[ours].numpy()
        kind = Q.F32
        if value.ndim == 2:
            kind = Q.Q8_0 if theirs.startswith("token_embd") else cycle[matrices % len(cycle)]
            matrices += 1
            if value.shape[1] % 32 and kind in (Q.Q4_0, Q.Q4_1, Q.Q8_0):
                kind = Q.F16
        stored = permute(value, heads) if heads else value
        packed = gguf.quants.quantize(stored, kind)
        raw = None if kind in (Q.F32, Q.F16) else kind
        writer.add_tensor(theirs, packed, raw_dtype=raw)
        back = gguf.quants.dequantize(packed, kind).astype(numpy.float32).reshape(value.shape)
        back = unpermute(back, heads) if heads else back
        assert numpy.abs(back - value).max() < 0.25, (theirs, kind)
        state[ours] = torch.from_numpy(numpy.ascontiguousarray(back))
        used[kind.name] = used.get(kind.name, 0) + 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    print(name, used)
    assert golden(name, model, tokenizer, PROMPTS), "choose another order of types"


def write_blocks() -> None:
    """Random blocks of every common GGUF type: packed bytes and their values."""
    generator = numpy.random.default_rng(7)
    tensors = {}
    kinds = [Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K]
    scales = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
              "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}  # byte offsets of fp16 scales
    for kind in kinds:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows = 4 if block > 1 else 64
        packed = generator.integers(0, 256, (rows, size), dtype=numpy.uint8)
        if block == 1:  # plain numbers: no NaN or infinity
            values = generator.standard_normal((rows, 1)).astype(numpy.float32)
            packed = gguf.quants.quantize(values, kind).view(numpy.uint8).reshape(rows, size)
        for offset in scales.get(kind.name, []):
            scale = (0.1 * generator.standard_normal(rows)).astype(numpy.float16)
            packed[:, offset : offset + 2] = scale.view(numpy.uint8).reshape(rows, 2)
        stored = packed.view(numpy.float16) if kind == Q.F16 else packed
        values = gguf.quants.dequantize(stored, kind).astype(numpy.float32).reshape(-1)
        tensors[f"{kind.name}.bytes"], tensors[f"{kind.name}.values"] = packed.reshape(-1), values
    common.save_tensors(common.MODELS / "gguf_blocks.safetensors", tensors)


def tokenizer_cases(tokenizer: Tokenizer) -> None:
    """Text -> ids -> text of the tiny tokenizer, difficult spellings included."""
    texts = TEXT + PROMPTS + [
        "", " ", "  two  spaces  ", "tabs\tand\nnew lines\r\n\n", "don't they're we'll I'D", "3.14159 and 2026",
        "naïve façade, Ünïcode", "日本語のテキスト", "emoji 🏹🎯 and flags 🇫🇮", "<|im_start|>user\nhello<|im_end|>",
        "a<|endoftext|>b", "non\u00a0breaking\u2003spaces", "e\u0301 combining", "\u0660\u0661 digits \u00bd",
        "trailing space ", "snake_case CamelCase x=1;", "...!!!??", "\u0000control\u007f",
    ]
    cases = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    common.save_json(common.MODELS / "tokenizer.golden.json", {"cases": cases}, indent=None)


def main() -> None:
    common.single_threaded()
    tokenizer = train_tokenizer()
    long = PROMPTS[:1] + [LONG_PROMPT]
    tied = build("llama-tied", tokenizer, PROMPTS, False, hidden_size=64, intermediate_size=80,
                 num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
                 rms_norm_eps=1e-5)
    build("llama-sharded", tokenizer, PROMPTS, True, dtype=torch.bfloat16, shard="150KB", hidden_size=60,
          intermediate_size=80, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1, head_dim=16,
          tie_word_embeddings=False, rms_norm_eps=1e-6,
          rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                 num_key_value_heads=1, tie_word_embeddings=True, rms_norm_eps=1e-5)
    llama3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    build("llama-rope-llama3", tokenizer, long, False, **small, rope_parameters=llama3)
    build("llama-rope-linear", tokenizer, long, True, **small, rope_parameters=linear)
    write_gguf("llama-mixed", tied, tokenizer)
    write_blocks()
    tokenizer_cases(tokenizer)


if __name__ == "__main__":
    main()
