#!/usr/bin/env python3
"""Lists the tests that the last run skipped, with their reasons. Fails on a skip that tests/allowed_skips.txt does not name.

    scripts/skipped_tests.py build/test-results

GoogleTest writes an XML file per program there, tests/cli/test_support.py a JSON file per test program."""
import fnmatch
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent


def skips_of(folder):
    """(name, reason) of every skipped test, by name."""
    for path in folder.glob("*.xml"):
        for case in ElementTree.parse(path).iter("testcase"):
            skipped = case.find("skipped")
            if skipped is not None:
                reason = (skipped.get("message") or "no reason").strip().splitlines()[-1]
                yield f"{case.get('classname')}.{case.get('name')}", reason
    for path in folder.glob("*.json"):
        yield from json.loads(path.read_text())["skipped"]


def allowed_skips():
    """name, or a pattern of names with * and ?, -> why it may be skipped."""
    lines = (ROOT / "tests/allowed_skips.txt").read_text().splitlines()
    return dict(line.split(None, 1) for line in lines if line and not line.startswith("#"))


def main():
    folder = pathlib.Path(sys.argv[1])
    if not any(folder.glob("*.xml")) and not any(folder.glob("*.json")):
        print(f"skipped_tests: '{folder}' holds no results of tests; run ctest first", file=sys.stderr)
        return 1
    allowed, skips = allowed_skips(), sorted(skips_of(folder))
    unlisted = [name for name, _ in skips if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    for name, reason in skips:
        print(f"skipped {name}: {reason}")
    if not skips:
        print("no test was skipped")
    for name in unlisted:
        print(f"skipped_tests: '{name}' was skipped and tests/allowed_skips.txt does not name it: "
              "mend what it needs, or add it there with the reason", file=sys.stderr)
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main())
