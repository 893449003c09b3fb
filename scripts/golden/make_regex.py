"""What Python's `re` makes of patterns over module names, as PEFT uses them -> tests/golden/regex.

    .venv/bin/python scripts/golden/make_regex.py
"""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

import common

NAMES = [
    "q_proj",
    "layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.k_proj",
    "model.layers.11.self_attn.o_proj",
    "model.layers.21.mlp.down_proj",
    "model.layers.3.mlp.experts.0.up_proj",
    "model.layers.3.mlp.experts.12.up_proj",
    "MODEL.Layers.2.Self_Attn.Q_PROJ",
    "lm_head",
    "aa.aa.bb",
    "aab",
    "ab-ab",
    "]q",
    "x]q",
    "a-b",
    "a b\tc",
    "a\x1cb",
    "\u00e9t\u00e9.\u0663",
    "caf\u00e9",
    "\u65e5\u672c.1.x",
    "ends\n",
    "two\nlines",
    "a.b\n.c",
    "{2}",
    "a{,b}",
    "aaaa",
    "$",
    "^a",
    "a\\b",
    "\u0411",
    "\x08",
]

PATTERNS = [
    # What adapters have.
    "q_proj", r".*q_proj", r".*\.q_proj", r".*\.(q|k)_proj", r".*layers\.1\.(self_attn\.q_proj|mlp\.down_proj)",
    r"^model\..*proj$",
    r"model\.layers\.(?:[0-9]|1[0-9])\.self_attn\.(?:q|k|v|o)_proj", r".*\.experts\.\d+\.(gate|up|down)_proj",
    r"(?!.*lm_head).*proj",
    r".*\.layers\.(?!1\b)\d+\..*", r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|down_proj).*?)", r"layers\.1.*k_proj",
    "self_attn.q_proj", "",
    # Anchors and line ends.
    r"\Amodel.*", r".*proj\Z", r"\Aq_proj", r"q_proj\Z", r"\A.*\Z", "^q_proj$", "ends$", r"ends\Z", "ends\n$",
    "(?m)^lines$", "two$", "(?m:two$)", r"(?m)two$\nlines",
    "a.b.*", "(?s)two.lines", "(?s:two.)lines", "two.lines", "(?m)^", "(?m:^)two\n(?m:^)lines", r"ends\n(?m:^)",
    r"\bq_proj\b", r".*\Bproj", r"\Bends", r".*\b",
    # Classes.
    "[]q]+", "[^]q]+", "[]q]", "x[]q]*", "[a-c]+", "[-a]b?", "[a-]+b", "[a\\-b]+", r"[\w.]+", r"[^\W]+",
    r"[\W\d]+", r"[^\W_]+", r"[\S]+", r"[^\S]", r"[\s\S]+", r"[^\s]+",
    r"[\d\D]+", r"[\]q]+", r"[\x5d\161]+", "[[]", "[a&&b]+", "[a||b]+", "[^a-z]+", r"[\b]", r"[\0-\x20]", r"[.]+",
    r"[\\a]+b", "[a\u00e9-\u00ff]+t\u00e9.*", "[\u0411]",
    # Escapes.
    r"\w+", r"\d+", r".*\.\d+", r".*\D", r"a\sb\sc", r"a\x1cb", r"\S+", r"\W+", r"\u00e9t\u00e9\.\d",
    r"\U000000e9t\xe9\..", r"caf\w", r"\101b", r"\141\141b", r"\0", r"a\\b", r"\$", r"\^a",
    r"\{2\}", r"\-", r"a\-b", "a\\ b\\\tc", r"a\tb", r"\u65e5\u672c.*",
    # Repeats.
    "a{4}", "a{2,}", "a{,5}", "a{2,3}a", "a{2}{2}", "{2}", "a{,b}", "a{", "a{}", "a{1", "(?:a{2}){2}", "a{,}",
    "a*?b", "a+?b", "a??ab", "a*+b", "a++a", "a?+ab", "a{1,3}+b", "a{1,2}?b",
    "(a|aa)+b", "(?:)*aab", "(?:a?)*b", "(?=a)*aab", "(?=a){2}aab", "a(?#two)*b", "(a*)*b", "(a*)+b",
    "(a+)+\\.(a+)+\\.b+", "x*", "(?:x?){0,3}aab",
    # Groups and references.
    r"(?P<n>aa)\.(?P=n)\.bb", r"(aa)\.\1\.bb", r"(?P<n>ab)-(?P=n)", r"(ab)-\1", r"(a)(a)\2?b", r"(?P<x>a)\1b",
    r"(?:(a)|b)*\1?b", r"(a)?\1b", r"(x)?\1", r"(a(b)?)+", r"(?:(a)|(b))+\2",
    r"(?P<idx>\d+)", r"(?P<a>.)(?P<b>.)b", r"()aab", r"(|a)+b", "a|aab", "|aab", "aab|", "(a|b|)*",
    # Look-around and atomic groups.
    r".*(?<=self_attn\.)q_proj", r".*(?<!self_attn\.)q_proj", r".*(?<=q|k)_proj", "(?<=a)b", "aa(?<=aa)b",
    r"aa(?<=a(?:a|b)?)b", r"aa(?<=(?:aa|bb))b", "(?!)", "(?=)aab", "(?>a+)b", "(?>a+)ab",
    "(?<!x)aab", r"aab(?<=\Aaab)", r"aab(?<=b$)", "(?=.*b)a+b", r"(?=(a+))\1b", r"(?!(a)b)a.*",
    # Flags.
    "(?i)model.*", "(?i).*q_proj", "(?i:model).*", "(?i:MODEL).Layers.*", "(?i)(?-i:model).*", "(?i)[m-z]odel.*",
    "(?i)[^a-l]odel.*", r"(?i)(m)odel\.layers\.2.*", "(?is)two.LINES", "(?s-i:two.lines)",
    "(?u)caf.", "(?i-u:x)", "(?i-i:x)", "(?i)caf\u00e9", "(?#c)(?i)AAB", "a(?i)b", "(?i:x)(?s)y", "(?a)caf.",
    "(?x) a a b", "(?L)a", "(?-:a)", "(?i-:a)", "(?ii)AAB", "(?z)a",
    # What Python refuses.
    "(", ")", "a)", "(?P<a", "(?P<1>a)", "(?P<>a)", "(?P=n)", "(?P<n>a)(?P<n>b)", "(?P<n>(?P=n))", r"\1", r"(\1)",
    r"(a)\2", "[", "[a", "[]", "[^]", "[b-a]", r"[\d-z]", r"[a-\d]", "*", "a**", "a*{2}", "+a",
    "^*", r"\b+", "(*)", "|*", "a{3,2}", r"\q", r"[\q]", r"\z", r"[\A]", r"\x1", r"\u12", r"\U00110000", r"\400",
    r"\8", r"[\8]", r"[\400]", "(?<=a*)b", "(?<=a|bb)c", "(?<a>b)", "(?", "(?:", "(?P", "(?Px)", "(?#", "\\",
    "(?-i)a", "(?i", "(?i-)a",
    # What Quiver does not translate.
    r"(a)?(?(1)a|b)", r"(?P<a>a)?(?(a)a|b).*", r"\N{DIGIT ONE}", "a{1001}", r"(a)(?<=\1)b", r"\ud800",
    "(?P<\u00e9>a)", "(" * 101 + "a" + ")" * 101, "(" * 90 + "aab" + ")" * 90,
    # Keys that close the group which PEFT puts around them.
    "a)|(aab", "q_proj)?(", r"x)?(\2",
]

LAYERS_PATTERNS = [None, "", "layers", "experts", "h", r"(?:layers|experts)", r"\w+", r"\.layers", "(l)ayers",
                   r"mlp\.experts", "(?P<idx>layers)", r"[]q]",
                   ["experts", "layers"], ["nothing"], []]


def outcome(run) -> str:
    """A bit per name, or why there is none."""
    try:
        return "".join(str(int(bool(run(name)))) for name in NAMES)
    except re.error as error:
        return f"re.error: {error}"
    except (RecursionError, OverflowError, IndexError) as error:
        return type(error).__name__


def targeted(**config):
    """PEFT's check_target_module_exists of a configuration; 1 stands for a target, 0 for none."""
    defaults = {"exclude_modules": None, "modules_to_save": None, "target_parameters": None,
                "layers_to_transform": None, "layers_pattern": None}
    full = SimpleNamespace(**{**defaults, **config})
    return lambda name: check_target_module_exists(full, name) not in (False, None)


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    patterns = [
        {
            "pattern": pattern,
            "target_modules": outcome(targeted(target_modules=pattern)),
            # get_pattern_key gives the key back, and the name where none matches.
            "pattern_key": outcome(lambda name: re.match(rf"(.*\.)?({pattern})$", name) is not None),
        }
        for pattern in PATTERNS
    ]
    for row in patterns:  # the line above is get_pattern_key's, which is told apart from "no match" by a name that differs
        if set(row["pattern_key"]) <= set("01"):
            for bit, name in zip(row["pattern_key"], NAMES):
                found = get_pattern_key([row["pattern"]], name) == row["pattern"]
                assert name == row["pattern"] or int(bit) == found, (row, name)
    tails = sorted({name.rsplit(".", 1)[-1] for name in NAMES if "." in name})
    layers = [
        {"layers_pattern": pattern, "layers_to_transform": indices,
         "target_modules": outcome(targeted(target_modules=set(tails), layers_pattern=pattern, layers_to_transform=indices))}
        for pattern in LAYERS_PATTERNS
        for indices in (1, [0, 3, 12], [])
    ]
    common.save_json(common.GOLDEN / "regex" / "cases.json", {"names": NAMES, "tails": tails, "patterns": patterns,
                                                                    "layers": layers})
    refused = sum(not set(row["target_modules"]) <= set("01") for row in patterns)
    print(f"{len(patterns)} patterns, {refused} of them refused by Python; {len(NAMES)} names; {common.versions('peft')}")


if __name__ == "__main__":
    main()
