#!/usr/bin/env python3
"""Checks the messages of the libraries and the tests of messages.

A library names an option by its field, in backticks; quiver/cli/flags.cpp turns `top_k` into --top-k. A test of a refusal pins kind and text.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
FLAG = re.compile(r"(?:^|[\s'(:])--[a-z]")
ARGUMENT = re.compile(r"--[a-z-]+")  # alone in its literal: an argument of another program
MARK = re.compile(r"`([a-z_]+)(?:=[^`]*)?`")
THROW = re.compile(r"\b(?:EXPECT|ASSERT)_(?:ANY_)?THROW\b")


def sources(suffixes=(".h", ".cpp")):
    return sorted(path for path in (ROOT / "quiver").rglob("*") if path.suffix in suffixes)


def is_test(path):
    return path.name.endswith("_test.cpp") or path.name == "test_support.h" or path.parent.name == "testing"


def flags_of_program():
    """Flags that quiver/cli declares, and the fields whose flags have other names."""
    text = "\n".join(path.read_text() for path in (ROOT / "quiver" / "cli").glob("*.cpp")) + "\n"
    text += "\n".join(path.read_text() for path in (ROOT / "quiver" / "cli").glob("*.h"))
    declared = set(re.findall(r'"!?(--[a-z-]+)"', text))
    table = (ROOT / "quiver" / "cli" / "flags.cpp").read_text()
    return declared, dict(re.findall(r'\{"([a-z_]+)", "(--[a-z-]+)"\}', table))


def options_of_methods():
    """Options of the rows of quiver/methods, whose flags the program makes from their schemas."""
    text = "\n".join(path.read_text() for path in sources() if path.parent.name == "methods" and not is_test(path))
    return set(re.findall(r'\.add(?:_words)?\(\s*&\w+::\w+,\s*"([a-z_]+)"', text))


def names_of_headers():
    """Members, parameters and functions that the headers of the libraries declare."""
    text = "\n".join(path.read_text() for path in sources((".h",)) if path.parent.name != "cli")
    return set(re.findall(r"[\w>&*] ([a-z_]+)(?: = [^;(]+|\{[^;]*\})?(?=[;,()])", text))


def faults():
    declared, other_names = flags_of_program()
    options = options_of_methods()
    declared |= {"--" + option.replace("_", "-") for option in options}
    names = names_of_headers() | options
    for path in sources():
        where = path.relative_to(ROOT)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if THROW.search(line):
                yield f"{where}:{number}: pin kind and text of an Error: EXPECT_ERROR (quiver/testing/message_of.h)"
            if where.parts[1] == "cli" or is_test(path) or line.lstrip().startswith("//"):
                continue
            for literal in LITERAL.findall(line):
                if FLAG.search(literal) and not ARGUMENT.fullmatch(literal):
                    yield f"{where}:{number}: a library has fields, not flags: write `top_k`, not --top-k"
                for field in MARK.findall(literal):
                    flag = other_names.get(field, "--" + field.replace("_", "-"))
                    if flag not in declared:
                        yield f"{where}:{number}: `{field}` is no option of the program: there is no {flag}"
                    elif field not in names:
                        yield f"{where}:{number}: `{field}` is no name that a header of the libraries declares"


def main():
    found = list(faults())
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
