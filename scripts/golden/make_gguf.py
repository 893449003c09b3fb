"""Writes tests/golden/gguf: small GGUF files made by the Python package `gguf`, and their values dequantised by it.

    .venv/bin/python scripts/golden/make_gguf.py
"""

import importlib.metadata
import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "gguf"
SEED = 20240517
QUANTISED = ("F16", "BF16", "Q4_0", "Q4_1", "Q8_0")
# Where the scales of a block stand, halves all. Any bytes at all are a block, as long as these are finite.
SCALES = {
    "Q5_0": (0,), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}  # fmt: skip


def write_metadata(writer):
    writer.add_uint8("test.uint8", 255)
    writer.add_int8("test.int8", -128)
    writer.add_uint16("test.uint16", 65535)
    writer.add_int16("test.int16", -32768)
    writer.add_uint32("test.uint32", 4294967295)
    writer.add_int32("test.int32", -2147483648)
    writer.add_uint64("test.uint64", 2**63 - 1)
    writer.add_int64("test.int64", -(2**63))
    writer.add_float32("test.float32", 0.1)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "naïve Ġ")
    writer.add_array("test.strings", ["a", "", "Ġb"])
    writer.add_array("test.ints", [3, -1, 2])
    writer.add_array("test.floats", [0.5, -1.25])
    writer.add_array("test.bools", [True, False])
    writer.add_key_value("test.bytes", b"\x00\x07\xff", GGUFValueType.ARRAY, GGUFValueType.UINT8)


def write_tensors(writer):
    rng = np.random.default_rng(SEED)
    writer.add_tensor("plain.f32", rng.standard_normal((3, 5), dtype=np.float32))
    # Normal, subnormal and special halves. (Signalling NaNs are left out: machines differ on them.)
    specials = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFC00, 0x7C00, 0x7E00, 0x3C01], np.uint16)
    writer.add_tensor("special.f16", specials.view(np.float16))
    for name in QUANTISED:
        kind = GGMLQuantizationType[name]
        values = rng.standard_normal((4, 96), dtype=np.float32) * np.float32(0.05)
        values[0, :32] = 0
        writer.add_tensor(f"random.{name.lower()}", quants.quantize(values, kind), raw_dtype=kind)
        if name.startswith("Q"):  # any bytes at all are a block, as long as the scales are finite
            size = quants.quant_shape_to_byte_shape((8, 32), kind)
            blocks = rng.integers(0, 256, size, dtype=np.uint8)
            scales = rng.standard_normal((8, 2)).astype(np.float16)
            scales[0] = -0.0, 6e-8  # a negative zero, a subnormal
            count = 4 if name == "Q4_1" else 2
            blocks[:, :count] = scales.view(np.uint8)[:, :count]
            writer.add_tensor(f"bytes.{name.lower()}", blocks, raw_dtype=kind)
    kind = GGMLQuantizationType.Q6_K
    blocks = rng.integers(0, 256, quants.quant_shape_to_byte_shape((2, 256), kind), dtype=np.uint8)
    writer.add_tensor("unsupported.q6_k", blocks, raw_dtype=kind)


def write_file(path, alignment=None):
    writer = GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    write_metadata(writer)
    write_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_blocks(path):
    """Four rows of random blocks of each type of SCALES, and a tensor of a type that is not read."""
    writer = GGUFWriter(path, "llama")
    rng = np.random.default_rng(SEED + 1)
    for name, places in SCALES.items():
        kind = GGMLQuantizationType[name]
        size = quants.quant_shape_to_byte_shape((4, 256), kind)
        blocks = rng.integers(0, 256, size, dtype=np.uint8).reshape(-1, GGML_QUANT_SIZES[kind][1])
        scales = rng.standard_normal((len(blocks), len(places))).astype(np.float16)
        scales[0] = (-0.0, 6e-8)[: len(places)]  # a negative zero, a subnormal
        for column, place in enumerate(places):
            blocks[:, place : place + 2] = scales[:, column : column + 1].copy().view(np.uint8)
        writer.add_tensor(f"bytes.{name.lower()}", blocks.reshape(size), raw_dtype=kind)
    kind = GGMLQuantizationType.IQ2_XXS
    blocks = rng.integers(0, 256, quants.quant_shape_to_byte_shape((1, 256), kind), dtype=np.uint8)
    writer.add_tensor("unsupported.iq2_xxs", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save_expected(name):
    expected = {}
    for tensor in GGUFReader(OUT / f"{name}.gguf").tensors:
        if tensor.name.startswith("unsupported"):
            continue
        values = quants.dequantize(np.asarray(tensor.data), tensor.tensor_type)
        shape = [int(dim) for dim in reversed(tensor.shape)]
        expected[tensor.name] = np.ascontiguousarray(values, dtype=np.float32).reshape(shape)
    save_file(expected, OUT / f"{name}.expected.safetensors")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    write_file(OUT / "every_type.gguf")
    write_file(OUT / "alignment_64.gguf", alignment=64)
    save_expected("every_type")
    write_blocks(OUT / "blocks.gguf")
    save_expected("blocks")

    (OUT / "README.md").write_text(
        "`every_type.gguf` was written by the Python package `gguf`, and `every_type.expected.safetensors` holds its\n"
        "tensors as that package dequantises them, to be matched bit for bit. `alignment_64.gguf` is the same with\n"
        "another alignment. `blocks.gguf` holds random blocks of the types that the others lack.\n\n"
        f"Made by `scripts/golden/make_gguf.py` with gguf {importlib.metadata.version('gguf')}, "
        f"numpy {np.__version__}, seed {SEED}.\n"
    )


if __name__ == "__main__":
    main()
