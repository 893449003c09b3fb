#!/usr/bin/env python3
"""Checks that every #include obeys the table of layers in docs/architecture.md (cmake/layers.cmake links by it).

Checks, too, that raw pointers of tensors are taken in quiver/tensor/raw_data.h alone, which checks the tensor first, and that
quiver/http/request_parser.h alone includes Beast, which is slow to compile."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def allowed_folders():
    """folder -> folders it may include, from the quiver_layer() calls that also link them."""
    text = (ROOT / "cmake" / "layers.cmake").read_text()
    table = {}
    for call in re.findall(r"^quiver_layer\((.*?)\)$", text, re.M | re.S):
        words = call.split()
        folders = []
        if "FOLDERS" in words:
            for word in words[words.index("FOLDERS") + 1:]:
                if word == "LIBRARIES":
                    break
                folders.append(word)
        table[words[0]] = {words[0], *folders}
    everything = set(table)
    table["cli"] = everything - {"testing"} | {"cli"}
    return table


def main():
    table = allowed_folders()
    faults = []
    for path in sorted((ROOT / "quiver").rglob("*")):
        if path.suffix not in (".h", ".cpp", ".inc"):
            continue
        folder = path.relative_to(ROOT / "quiver").parts[0]
        if folder == "quiver.h":  # for users: it may include what the program may
            folder = "cli"
        is_test = path.name.endswith(("_test.cpp", "test_support.h"))
        # mapped.cpp asks a tensor who owns its memory, and reads none of it.
        may_take_pointers = is_test or folder == "testing" or path.relative_to(ROOT / "quiver").as_posix() in ("tensor/raw_data.h", "tensor/mapped.cpp")
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"\bdata_ptr\b|_data_ptr\b", line) and not may_take_pointers:
                faults.append(f"{path.relative_to(ROOT)}:{number}: takes a raw pointer; quiver/tensor/raw_data.h does so with checks")
            if '#include "quiver/quiver.h"' in line:
                faults.append(f"{path.relative_to(ROOT)}:{number}: includes quiver/quiver.h, which is for users alone")
            if "<boost/beast/" in line and path.name != "request_parser.h":
                faults.append(f"{path.relative_to(ROOT)}:{number}: includes Beast; quiver/http/request_parser.h alone does")
            found = re.match(r'\s*#include "quiver/(\w+)/', line)
            if not found:
                continue
            target = found.group(1)
            if target in table.get(folder, set()) or (is_test and target in ("testing", "io")):
                continue
            faults.append(f"{path.relative_to(ROOT)}:{number}: {folder} may not include {target}")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
