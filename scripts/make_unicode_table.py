"""Writes quiver/text/unicode_recent.inc and quiver/text/unicode_after9.inc.

Run:  python scripts/make_unicode_table.py quiver/text     (tokenizers 0.23.3, Python 3.11, Perl 5.36)

`tokenizers` follows several versions of Unicode: its regular expressions know 16, its normal forms 9. PCRE2 and
utf8proc of the systems that we support know 14 or more. The first table holds what was assigned after 14, for the
regular expressions; the second what was unassigned in 9 and matters to normal forms. A Python whose unicodedata is of
Unicode 14 gives the one baseline, Perl the other.
"""

import pathlib
import subprocess
import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf".split()
SCRIPTS = ["Han", "Hiragana", "Katakana", "Hangul"]
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
# The parts of the canonical composition U+11938; neither has a decomposition or a combining class of its own.
COMPOSITION_PARTS = {0x11930, 0x11935}
UNASSIGNED_IN_9 = r"""
for my $c (0..0x10FFFF) {
  next if $c >= 0xD800 && $c < 0xE000;
  print "$c\n" unless chr($c) =~ /\p{Present_In: 9.0}/;
}"""


def matched(pattern, code_points):
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for start in range(0, len(code_points), 4096):
        chunk = code_points[start : start + 4096]
        kept = {ord(c) for piece, _ in split.pre_tokenize_str("".join(map(chr, chunk))) for c in piece}
        found.update(c for c in chunk if c not in kept)
    return found


def ranges(code_points):
    out = []
    for c in sorted(code_points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def recent_rows():
    rows = []
    for category in CATEGORIES:
        baseline = {c for c in CODE_POINTS if unicodedata.category(chr(c)) == category}
        rows += [(category, *r) for r in ranges(matched(rf"\p{{{category}}}", CODE_POINTS) - baseline)]
    unassigned = [c for c in CODE_POINTS if unicodedata.category(chr(c)) == "Cn"]
    for script in SCRIPTS:
        rows += [(script, *r) for r in ranges(matched(rf"\p{{{script}}}", unassigned))]
    return rows


def after9_rows(recent):
    perl = subprocess.run(["perl", "-e", UNASSIGNED_IN_9], check=True, capture_output=True, text=True)
    unassigned = {int(line) for line in perl.stdout.split()}
    nfkd = normalizers.NFKD()
    for c in CODE_POINTS:  # the assumption that the whole table rests on
        if c not in unassigned:
            assert nfkd.normalize_str(chr(c)) == unicodedata.normalize("NFKD", chr(c)), hex(c)
    newer = {c for _, first, last in recent for c in range(first, last + 1)}

    def matters(c):
        return (
            c in newer
            or c in COMPOSITION_PARTS
            or unicodedata.category(chr(c)).startswith("M")
            or unicodedata.normalize("NFKD", chr(c)) != chr(c)
        )

    return [r for r in ranges(unassigned) if any(matters(c) for c in range(r[0], r[1] + 1))]


def main():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    folder = pathlib.Path(sys.argv[1])
    recent = recent_rows()
    lines = ["// Made by scripts/make_unicode_table.py; do not edit. {property, first, last}, assigned after Unicode 14"]
    lines += [f'{{"{name}", 0x{first:04X}, 0x{last:04X}}},' for name, first, last in recent]
    (folder / "unicode_recent.inc").write_text("\n".join(lines) + "\n")
    lines = ["// Made by scripts/make_unicode_table.py; do not edit. {first, last}, unassigned in Unicode 9"]
    lines += [f"{{0x{first:04X}, 0x{last:04X}}}," for first, last in after9_rows(recent)]
    (folder / "unicode_after9.inc").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
