#!/usr/bin/env python3
"""Checks that the tables of options in docs/cli.md are those that the program has; --write writes them there.

The program says what methods there are and what options each has (quiver methods --json). QUIVER_BUILD is the build folder (default: build).
"""
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"
PROGRAM = pathlib.Path(os.environ.get("QUIVER_BUILD", ROOT / "build")) / "quiver"


FAMILIES = {"once for all": "merges", "per token": "per token", "per prompt": "per prompt"}


def readers(names, families):
    """"`a`, `b`", with the name of a family in place of all its methods."""
    words, rest = [], list(names)
    for family, members in families.items():
        if len(members) > 3 and all(name in names for name in members):
            words.append(f"all {family}")
            rest = [name for name in rest if name not in members]
    return ", ".join(words + [f"`{name}`" for name in rest])


def table(methods):
    """Lines of a table with a row for each option, in the order of the methods."""
    families, options = {}, {}
    for method in methods:
        name = method["name"]
        if name.endswith("=NAME"):  # its option is written in the name
            continue
        families.setdefault(FAMILIES.get(method.get("family"), "methods"), []).append(name)
        for option in method["options"]:
            options.setdefault(option["name"], []).append((name, option))
    lines = ["| option | default | values | meaning | methods |", "| --- | --- | --- | --- | --- |"]
    for name, uses in options.items():
        first = uses[0][1]
        defaults = {}
        for method, option in uses:
            defaults.setdefault(option["default"], []).append(method)
        usual = max(defaults, key=lambda default: len(defaults[default]))
        default = "; ".join([usual] + [f"{', '.join(f'`{m}`' for m in methods)}: {value}" for value, methods in defaults.items() if value != usual])
        values = first["type"] + (", " + first["range"] if "range" in first else "")
        meaning = first["help"] + (f"; with `{first['needs']}` only" if all("needs" in option for _, option in uses) else "")
        row = [f"`--{name.replace('_', '-')}`", default, values, meaning, readers([method for method, _ in uses], families)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return lines


def main():
    said = json.loads(subprocess.run([PROGRAM, "methods", "--json"], check=True, capture_output=True, text=True).stdout)
    old = page = PAGE.read_text()
    for part in ("methods", "adapt"):
        begin, end = f"<!-- options of {part}: scripts/check_methods.py --write -->\n", f"<!-- end of options of {part} -->\n"
        head, rest = page.split(begin)
        page = head + begin + "\n".join(table(said[part])) + "\n" + end + rest.split(end)[1]
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page)
    elif page != old:
        print("docs/cli.md: the tables of options are not those of the program; scripts/check_methods.py --write mends them")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
