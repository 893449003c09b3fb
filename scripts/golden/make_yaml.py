"""What PyYAML's safe loader makes of scalars and documents -> tests/golden/yaml.

    .venv/bin/python scripts/golden/make_yaml.py
"""

from __future__ import annotations

import datetime

import yaml

import common

SCALARS = """
yes Yes YES yEs y no No NO n true True TRUE tRUE false False FALSE on On ON oN off Off OFF
null Null NULL nULL ~ ~~ None nil
0 1 -1 +1 12 1_000 _1 1__2 1_ 007 010 08 09 -010 +017 0_7 00 0_ 0o17 0b101 0b1_0 -0b11 0b2 0b 0x1F 0xfF -0x10 0xg 0x 0x1_F
9223372036854775807 -9223372036854775808 123456789012
1:30 1:5 1:59 1:60 -1:30:00 01:30 0:30 12:30:45 190:20:30 1:2:3 1_0:20
1.0 1. .5 -.5 +.5 .5_0 1_0.5 1_.5 . .. 1.5e3 1.5e+3 1.5E-3 1e3 1e+3 1.e+2 1.e2 .5e+1 .5e1 -1.5 +1.5 1.5.2
0.1 3.141592653589793 1.7976931348623157e+308 5.e-324 1:30.5 1:30. -1:20:30.15 01:30.5 1:5:7.
.inf .Inf .INF -.inf +.inf .nan .NaN .NAN -.nan .iNf inf nan
2001-12-14 2001-12-1 2001-2-3 2001-12-14T21:59:43.10-05:00 2001-12-14t21:59:43Z 2001-1-1T1:02:03 20011214 2001-12 12001-12-14
a a:b a#b a-b -a --- -- :a x=1 = == << <<<
""".split()
DOCUMENTS = [
    "", "# nothing\n", "a: 1\nb: [yes, 'yes', \"yes\"]\n", "a:\n", "- a\n- - b\n  - c\n-\n",
    "a: |\n  two\n   lines\n\nb: |-\n  one\nc: |+\n  kept\n\nd: >\n  folded\n  line\n\n  para\n",
    "a: 'it''s'\nb: \"tab\\tnew\\nline \\u00e9 \\x41\"\nc: plain\n  goes on\n",
    "a: &x {b: 1, c: [2, 3]}\nd: *x\ne: [*x, *x]\n", "a: !!str 12\nb: !!int '7'\nc: !!float 3\nd: !!null ''\ne: !!bool 'no'\nf: ! 12\n",
    "{a: 1, b: {c: d}, 'e f': [1, 2,]}\n", "---\na: 1\n...\n", "--- text\n", "%YAML 1.1\n---\na: 1\n", "\ufeffa: 1\n", "a: \"\\U0001F600 \u2028\"\n",
    "'1': a\n\"yes\": b\n", "doc_to_text: \"{{question}}\\nA:\"\nuntil:\n  - \"\\n\"\n  - 'Q:'\n", "a: b: c\n", "a: [1, 2\n", "\tb: 1\n", "a: 'x\n", "a: *no\n",
    "a: 1\n---\nb: 2\n", "a: {{x}}\n", "a: \u0007\n", "? a\n: b\n", "a: !!python/name:os.system x\n", "- 0x_\n", "a: =\n",
    "key with spaces: value # comment\nurl: http://a.b/c#d\n", "a: \"x\\\n  y\"\n", "a: b\n b: c\n", "a: '%d'\nb: 100%\n", "a: @x\n", "a: `x`\n",
]


def described(value):
    if isinstance(value, (datetime.date, datetime.datetime)):
        return {"type": "date"}
    if isinstance(value, float):
        return {"type": "float", "value": repr(value)}
    return {"type": type(value).__name__, "value": value}


def loaded(text: str) -> dict:
    try:
        value = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, TypeError):
        return {"type": "error"}
    return described(value)


def main() -> None:
    folder = common.GOLDEN / "yaml"
    cases = {
        "scalars": [{"text": text, **loaded("- " + text + "\n")} for text in SCALARS],
        "documents": [{"text": text, **loaded(text)} for text in DOCUMENTS],
    }
    for case in cases["scalars"]:
        if case["type"] == "list":
            case |= described(case["value"][0]) if len(case["value"]) == 1 else {}
            if case["type"] == "date":
                case.pop("value", None)
    common.save_json(folder / "cases.json", cases)
    (folder / "README.md").write_text(
        f"""# Golden values: YAML

`cases.json`: what PyYAML's `CSafeLoader` reads, by {common.versions("PyYAML")} over libyaml {".".join(map(str, yaml._yaml.get_version()))}.
Each `text` has the `type` of its value in Python and the `value`; a float is its `repr`. No seed, no tolerance: values are equal.

    .venv/bin/python scripts/golden/make_yaml.py
"""
    )


if __name__ == "__main__":
    main()
