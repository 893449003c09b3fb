#!/usr/bin/env python3
"""Runs a check over every source of a compile database; prints what fails and exits 1.

    scripts/lint_sources.py BUILD --jobs 2 -- clang-tidy -p BUILD ...      the command, with the source's path behind it
    scripts/lint_sources.py BUILD --jobs 2 --syntax                        the compiler's own command, parsing only

A source that passed is not checked again until it, a header of the project, a setting or the command changes."""
import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def sources_of(build):
    """path -> the compiler's command, once per path: kernels are compiled several times."""
    entries = json.loads((build / "compile_commands.json").read_text())
    return {pathlib.Path(entry["file"]): entry["command"] for entry in entries}


def local_files(path, seen):
    """The source and all files of the project that it includes, each once."""
    if path in seen or not path.is_file():
        return
    seen.add(path)
    for name in re.findall(r'^\s*#include "([^"]+)"', path.read_text(), re.M):
        local_files(pathlib.Path(name) if name.startswith("/") else ROOT / name, seen)


def fingerprint(path, words):
    files = set()
    local_files(path, files)
    digest = hashlib.sha256(json.dumps(words).encode())
    for file in sorted([*files, ROOT / ".clang-tidy"]):
        digest.update(str(file).encode() + file.read_bytes())
    return digest.hexdigest()


def syntax_command(command):
    """The compiler without its launcher and its output, parsing only."""
    words = shlex.split(command)
    start = next(i for i, word in enumerate(words) if re.search(r"(g\+\+|c\+\+|clang\+\+)[-\d]*$", word) and "ccache" not in word)
    words = words[start:]
    output = words.index("-o")
    return [*words[:output], *words[output + 2:], "-fsyntax-only"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip", default="", help="leave out paths that hold a match of this")
    parser.add_argument("--syntax", action="store_true")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    command = sys.argv[end + 1:]
    options = parser.parse_args(sys.argv[1:end])
    passed_path = options.build / "lint-passed.json"
    passed = json.loads(passed_path.read_text()) if passed_path.exists() else {}
    sources = {path: command for path, command in sources_of(options.build).items() if not (options.skip and re.search(options.skip, str(path)))}

    def check(path):
        words = syntax_command(sources[path]) if options.syntax else [*command, str(path)]
        key = fingerprint(path, words)
        if passed.get(str(path)) == key:
            return path, key, None
        done = subprocess.run(words, cwd=options.build if options.syntax else ROOT, capture_output=True, text=True)
        return path, key, None if done.returncode == 0 else done.stdout + done.stderr

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for path, key, fault in pool.map(check, sources):
            if fault is None:
                passed[str(path)] = key
                passed_path.write_text(json.dumps(passed))  # at once: an interrupted run goes on
            else:
                failed += 1
                passed.pop(str(path), None)
                print(fault, flush=True)
    print(f"  {len(sources)} sources, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
