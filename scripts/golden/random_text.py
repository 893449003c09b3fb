"""Seeded random Unicode strings that tokenizers find difficult. text(seed, i) is a function of its arguments alone."""

from __future__ import annotations

import random

# (first, last) of scripts and blocks; unassigned and recently assigned code points are among them on purpose.
BLOCKS = [
    (0x0020, 0x007E), (0x00A0, 0x00FF), (0x0100, 0x024F), (0x0250, 0x02FF), (0x0300, 0x036F), (0x0370, 0x03FF),
    (0x0400, 0x052F), (0x0530, 0x058F), (0x0590, 0x05FF), (0x0600, 0x06FF), (0x0700, 0x07FF), (0x0860, 0x08FF),
    (0x0900, 0x097F), (0x0980, 0x0DFF), (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x10A0, 0x11FF),
    (0x1200, 0x139F), (0x1400, 0x18AF), (0x1900, 0x1AFF), (0x1B00, 0x1CFF), (0x1D00, 0x1DFF), (0x1E00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x20CF), (0x20D0, 0x20FF), (0x2100, 0x218F), (0x2190, 0x23FF), (0x2400, 0x27BF),
    (0x27C0, 0x2BFF), (0x2C00, 0x2E7F), (0x2E80, 0x2FFF), (0x3000, 0x30FF), (0x3100, 0x33FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7AF), (0xE000, 0xF8FF), (0xF900, 0xFAFF), (0xFB00, 0xFDFF),
    (0xFE00, 0xFE6F), (0xFE70, 0xFFFF), (0x10000, 0x107FF), (0x10800, 0x10FFF), (0x11000, 0x11FFF), (0x12000, 0x16FFF),
    (0x17000, 0x1BFFF), (0x1CC00, 0x1D7FF), (0x1D800, 0x1E7FF), (0x1E800, 0x1F2FF), (0x1F300, 0x1F6FF),
    (0x1F700, 0x1FAFF), (0x1FB00, 0x1FBFF), (0x20000, 0x2EE5F), (0x2F800, 0x323AF), (0xE0000, 0xE01EF),
    (0x10FF00, 0x10FFFF),
]
SPACES = list("   \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff")
CONTROLS = [chr(c) for c in [*range(0x20), 0x7F, *range(0x80, 0xA0), 0x200C, 0x200D, 0x200E, 0x202A, 0xFFFD, 0xFFFE]]
MARKS = [chr(c) for c in [*range(0x300, 0x370), *range(0x1AB0, 0x1AF0), *range(0x20D0, 0x20F1), 0x05B0, 0x05C1, 0x064B,
                          0x0651, 0x093C, 0x094D, 0x0E38, 0x0F71, 0x0F72, 0x3099, 0x309A, 0x11930, 0x1E08F, 0x0898]]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "❤️", "1️⃣", "🧑🏿‍🚀", "🫠", "🪿", "🩷", "☺", "©", "™"]
DIGITS = list("0123456789٠٣५៤²³¼½①Ⅷ〇十㊿𝟘𝟿") + ["\U00010D45", "\U00011DE3"]
WORDS = ("the of and to in is that for it as was with be by on not he his but at are this have from or had an they "
         "which one you were all her she there would their we him been has when who will no more if out so up said what "
         "its about than into them can only other time new some could these two may first then do any like my now over "
         "such our man me even most made after also did many off before must well back through years much where your "
         "way down should because long each just state those people too mr how little good world make very year still "
         "see own work men day get here old life both between being under three never know same last another while us "
         "Answer Question Input Output Definition Premise Hypothesis").split()
SUFFIXES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'Ll", "’s", "'ſ", "''s", "-", ".", ",", "...", "!?", ";"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|", "|im_end|>", "<|im_start|>user\n", "<|begin_of_text|>",
            "<|eot_id|>", "<repo_name>", "<file_sep>", "<issue_comment>", "<mask>", "<mask", "[PAD]", "<w>", "<ww>", "<<w>>",
            "<empty_output>", "<filename>", "<gh_stars>", "<jupyter_code>", "<unk>", "Ġthe", "ġ", "Ċ"]
COMPOSED = ["é", "e\u0301", "Å", "Å", "ﬁ", "ẛ̣", "가", "각", "ᄀ\u1161\u11a8", "İ", "ß", "ſ", "㍿", "ｱ", "１", "Ω", "ǆ", "ﷺ", "𝔘", "¨"]


def character(rng: random.Random) -> str:
    first, last = rng.choice(BLOCKS)
    return chr(rng.randint(first, last))


def word(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        text = rng.choice(WORDS)
        style = rng.random()
        return text.upper() if style < 0.1 else text.capitalize() if style < 0.3 else text
    if kind < 0.7:  # a word of one script
        first, last = rng.choice(BLOCKS)
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 9)))
    if kind < 0.85:
        return "".join(rng.choice("etaoinshrdlucmfwypvbgkqjxzETAOIN_") for _ in range(rng.randint(1, 14)))
    return "".join(rng.choice(DIGITS) if rng.random() < 0.3 else rng.choice("0123456789") for _ in range(rng.randint(1, 8)))


def run(rng: random.Random) -> str:
    """One character or a short string, many times."""
    unit = rng.choice([character(rng), rng.choice(SPACES), rng.choice(MARKS), rng.choice(EMOJI), rng.choice(DIGITS),
                       rng.choice("aZ!='\n "), rng.choice(WORDS), rng.choice(SPECIALS), "\r\n", "ab", "a\u0301\u0323"])
    return unit * rng.choice([2, 3, 5, 8, 17, 64, 200])


def item(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.40:
        return rng.choice(["", " ", " "]) + word(rng)
    if kind < 0.52:
        return rng.choice(SUFFIXES)
    if kind < 0.64:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4)))
    if kind < 0.72:
        return rng.choice(SPECIALS)
    if kind < 0.78:
        return rng.choice(EMOJI)
    if kind < 0.84:
        return "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 4)))
    if kind < 0.89:
        return rng.choice(COMPOSED)
    if kind < 0.94:
        return "".join(character(rng) for _ in range(rng.randint(1, 5)))
    if kind < 0.97:
        return rng.choice(CONTROLS)
    return run(rng)


def text(seed: int, index: int) -> str:
    rng = random.Random(f"{seed}/{index}")
    if index % 997 == 996:  # a very long run
        return run(rng) * rng.choice([20, 100])
    count = rng.choice([0, 1, 2, 3, 5, 8, 13, 21])
    return "".join(item(rng) for _ in range(count))


def texts(seed: int, count: int) -> list[str]:
    return [text(seed, i) for i in range(count)]
