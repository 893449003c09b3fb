"""Writes tests/golden/gguf/written.{gguf,safetensors}: a GGUF file by the Python package `gguf`, and the values that it was quantised from.

    .venv/bin/python scripts/golden/make_gguf_writer.py
"""

import importlib.metadata
import pathlib

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "gguf"
SEED = 20261129


def main():
    rng = np.random.default_rng(SEED)
    values = (rng.standard_normal((6, 64)) * 10.0 ** rng.integers(-9, 6, (6, 64))).astype(np.float32)
    values[0, :32] = 0
    values[1, :8] = [65519, 65520, -1e9, np.inf, -np.inf, np.nan, -0.0, 2.0**-25]  # edges of half precision
    values[1, 8:16] = [2.0**-14, 2.0**-24, 3 * 2.0**-25, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 6e-5]
    values[2] = np.arange(-32, 32) * 0.5 + 0.25
    values[2, 0] = 127  # a scale of 1: halves are rounded away from 0
    finite = values[[0, 2, 3, 4, 5]]
    writer = GGUFWriter(OUT / "written.gguf", "llama")
    writer.add_uint32("general.file_type", 7)
    writer.add_string("general.name", "naïve")
    writer.add_array("test.bools", [True, False])
    writer.add_bool("test.flag", True)
    writer.add_float32("test.float", 0.1)
    writer.add_array("test.floats", [0.5, -1.25])
    writer.add_array("test.ints", [3, -1, 2])
    writer.add_array("test.strings", ["a", "", "Ġb"])
    for name in ("F32", "F16", "BF16", "Q8_0"):
        kind = GGMLQuantizationType[name]
        with np.errstate(over="ignore"):
            writer.add_tensor(f"of.{name.lower()}", quants.quantize(finite if name == "Q8_0" else values, kind), raw_dtype=kind)
    writer.add_tensor("three", rng.standard_normal(3, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = {"gguf": importlib.metadata.version("gguf"), "numpy": np.__version__, "seed": str(SEED)}
    save_file({"values": values, "finite": finite}, OUT / "written.safetensors", metadata)


if __name__ == "__main__":
    main()
