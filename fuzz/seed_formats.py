"""Bytes of the formats that seeds are made of, right or wrong as asked."""

import json
import struct


def safetensors(header, data=b""):
    if not isinstance(header, bytes):
        header = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(header)) + header + data


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf(values=(), tensors=(), data=b"", version=3):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join(values)
    for name, dims, kind, offset in tensors:
        head += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    return head + bytes(-len(head) % 32) + data


def gguf_array(kind, values):
    """An array of a GGUF file's metadata."""
    pack = {5: "<i", 6: "<f"}
    packed = b"".join(text(value.encode()) if kind == 8 else struct.pack(pack[kind], value) for value in values)
    return struct.pack("<IIQ", 9, kind, len(values)) + packed


def gguf_string(key, value):
    return text(key) + struct.pack("<I", 8) + text(value)


def gguf_int(key, value):
    return text(key) + struct.pack("<Iq", 11, value)


def gguf_float(key, value):
    return text(key) + struct.pack("<If", 6, value)
