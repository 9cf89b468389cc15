"""Final answers: found in a response, read as exact numbers, compared with a reference.

Nothing here guesses: what cannot be read is None, which is not the same as wrong. All patterns run
in time linear in the text, and numbers are bounded, so hostile text cannot stall a run.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Verifier = Literal["numeric", "choice", "exact"]

MAX_CHARS = 1000
"""Longer texts are not read as a number or a choice: no honest final answer is that long."""
MAX_EXPONENT = 1000
"""Larger powers of ten are not read: 1e999999999 must not fill the memory."""

# --- finding -------------------------------------------------------------------------------------

_HASH = re.compile(r"^[ \t]*(#{1,6})([ \t]*)([^\s#][^\n]*)", re.MULTILINE)
_PHRASE = re.compile(
    r"\banswer\b(?:[ ](?:to|of|for)\b[^\n.:=]{0,80}?)?[ \t*_`]*(?:is\b|:|=)[ \t*_`:=]*(?:\n\s*)?([^\n]*)",
    re.IGNORECASE,
)
_BRACE = re.compile(r"\\boxed[ \t]*\{|\\[{}]|[{}]")
_LAST_NUMBER = re.compile(
    r"-?\\[dt]?frac\{\d+\}\{\d+\}|(?<![\w.,/])[-+−]?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?"
)


def final_answer(text: str, *, last_number: bool = False, cut: bool = False) -> str | None:
    r"""Find the final answer that a response marks as such; None if it marks none.

    Markers, of which the last one in the text wins: `#### 72` and `#72` at the start of a line
    (a Markdown heading with words in it, such as `## Step 2`, is none), `\boxed{72}` with balanced
    braces, "The answer is 72" and "Answer: 72" (the value may stand on the next line), and `A: 72`
    as the last line. `last_number` falls back on the last number in the text. `cut` says that the
    text was stopped by a token limit: its last line may be unfinished, so only a closed box counts
    there ("#7" may have been on its way to "#72").
    """
    whole = text[: text.rfind("\n") + 1] if cut else text
    found: list[tuple[int, str]] = []
    for pattern, accept in ((_HASH, _is_hash_answer), (_PHRASE, _is_not_empty)):
        last = None
        for match in pattern.finditer(whole):
            if accept(match):
                last = match
        if last:
            found.append((last.start(), _trim(last[last.re.groups])))
    last_line = whole.rstrip().rpartition("\n")[2]
    if not cut and last_line.lstrip().startswith("A:") and last_line.strip() != "A:":
        found.append((len(whole.rstrip()) - len(last_line), _trim(last_line.lstrip()[2:])))
    box = _last_box(text)
    if box:
        start, end = box
        inside = text[text.index("{", start) + 1 : end]
        if any(start < position < end for position, _ in found):
            return final_answer(inside)
        if inside.strip():
            found.append((start, inside.strip()))
    if found:
        return max(found)[1]
    if last_number and not cut:
        token = None
        for match in _LAST_NUMBER.finditer(text):
            token = match[0]
        return token.rstrip(",") if token else None
    return None


def _is_not_empty(match: re.Match[str]) -> bool:
    return bool(_trim(match[1]))


def _is_hash_answer(match: re.Match[str]) -> bool:
    hashes, space, value = len(match[1]), match[2], match[3]
    if hashes == 4 or (hashes == 1 and not space):
        return bool(_trim(value))
    return any(c.isdigit() for c in value) and not any(c.isalpha() for c in value)


def _trim(value: str) -> str:
    return value.strip().rstrip("#").strip(" \t*_`").removesuffix(".").strip(" \t*_`")


def _last_box(text: str) -> tuple[int, int] | None:
    r"""Start of the last `\boxed{` that is closed, and the place of its closing brace."""
    open_braces: list[int | None] = []
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        token = match[0]
        if token == "{":
            open_braces.append(None)
        elif token.startswith("\\boxed"):
            open_braces.append(match.start())
        elif token == "}" and open_braces:
            start = open_braces.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, match.start())
    return last


# --- reading -------------------------------------------------------------------------------------

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}|\\[dt]?frac\s?(\d)\s?(\d)")
_GROUP_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_LATEX = (
    ("{,}", ","),
    ("\\%", "%"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", "°"),
    ("^\\circ", "°"),
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("×", "*"),
    *((f"\\{space}", "\u2009") for space in ",!;: "),
)
_CHARS = {
    **{ord(c): "-" for c in "−‐‑–﹣－"},
    **{0xFF10 + digit: str(digit) for digit in range(10)},
    # A vulgar fraction is set apart, or the compatibility form of 1½ would read 11/2.
    **{
        code: " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
        for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
    },
    0x2044: "/",
}
_WRAPPERS = (
    ("**", "**"),
    ("__", "__"),
    ("$$", "$$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("“", "”"),
    ("‘", "’"),
    *((c, c) for c in "*_`$\"'"),
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
)


def _plain(text: str) -> str:
    """The answer without annotations, wrappers (Markdown, LaTeX, quotes, brackets), final dots."""
    if len(text) > MAX_CHARS:
        return ""
    text = _ANNOTATION.sub("", text)
    for old, new in _LATEX:
        text = text.replace(old, new)
    text = _GROUP_SPACE.sub("", text.translate(_CHARS))
    text = " ".join(_TEXT_COMMAND.sub(r" \1 ", text).split())
    before = None
    while text != before:
        before = text
        text = text.rstrip(" .,;:!").lstrip()
        for left, right in _WRAPPERS:
            if (
                len(text) > len(left + right)
                and text.startswith(left)
                and text.endswith(right)
                and _is_one_piece(text[len(left) : -len(right)], left, right)
            ):
                text = text[len(left) : -len(right)].strip()
    return text


def _is_one_piece(inside: str, left: str, right: str) -> bool:
    """Whether the marks around it belong together: not so in `(5) + (6)` and `$5$ or $6$`."""
    if left == right:
        return left not in inside
    depth = 0
    for char in re.findall(f"{re.escape(left)}|{re.escape(right)}", inside):
        depth += 1 if char == left else -1
        if depth < 0:
            return False
    return depth == 0


_NUM = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_CURRENCY = r"(?:US ?\$|[$€£¥₹₩₽¢]|USD|EUR|GBP|INR|CAD|AUD|Rs\.?)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?{_CURRENCY}? ?(?P<sign2>[+-]?) ?"
    rf"(?:(?:(?P<mantissa>{_NUM}) ?[*x] ?)?10 ?(?:\^|\*\*) ?\{{? ?(?P<power>[+-]?\d{{1,4}}) ?\}}?(?!\d)"
    rf"|(?P<decimal>{_NUM})[eE](?P<exponent>[+-]?\d{{1,4}})(?!\d)"
    rf"|(?:(?P<whole>\d+) )?(?P<top>{_NUM}) ?/ ?(?P<bottom>{_NUM})"
    rf"|(?P<number>{_NUM}))"
    r" ?(?P<scale>(?:(?:hundred|thousand|million|billion|trillion|dozens?)\b ?)*)"
    r"(?P<percent>(?:%|percent\b|per cent\b)?)"
    r"(?P<unit>(?:[ °'’/.()$€£¥₹¢²³-]|[^\W\d_]|\^\{?[23]\}?)*)"
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_SCALES |= {"trillion": 10**12, "dozen": 12, "dozens": 12}
_WORD = re.compile(r"[^\W\d_]+")
# Words after a number that make it another number, or no number at all.
_NOT_UNIT = re.compile(
    r"or|and|to|plus|minus|times|over|divided|squared|cubed|factorial|not|pi|π|sqrt|mod|half|halves"
    r"|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth"
    r"|lakh|crore|bn|mn|mil|mio|hundred|thousand|million|billion|trillion|dozen)s?"
)
_ONE_LETTER_UNITS = frozenset("mglshtvwjcf")
_LEFT_SIDE = re.compile(r"[^\W\d_]\w{0,15}|[^A-Za-z]*")
MAX_UNIT_WORDS = 12


@dataclass(frozen=True, slots=True)
class _Number:
    value: Fraction
    percent: bool


def parse_number(text: str) -> Fraction | None:
    r"""Read a text that is one number, exactly; None if it is not.

    Understood: signs (also the Unicode minus), thousands separators of the form 1,234 (so a comma
    is never a decimal sign), decimals, fractions 1/2, ½ and `\frac{1}{2}`, mixed numbers 1 1/2,
    scientific notation (1e3, 2 x 10^3), scale words (3 million, 2 dozen), percent (50% is exactly
    1/2), currency signs, the right side of `x = 72`, a final dot and up to twelve words of unit
    behind it ("72 apples a day"). Not a number: two of them (3 or 4, 3-4), algebra (2x), 2^10, a zero
    denominator, more than 1,000 characters, a power of ten beyond 1,000.
    """
    number = _number(text)
    return number.value if number else None


def _number(text: str) -> _Number | None:
    # An escaped dollar is money; a bare pair of them is LaTeX.
    plain = _plain(text.replace("\\$", "USD "))
    if "=" in plain:
        left, _, right = plain.rpartition("=")
        if not _LEFT_SIDE.fullmatch(left.strip()):
            return None
        plain = _plain(right)
    plain = " ".join(_FRACTION.sub(_fraction, plain).split())
    match = _NUMBER.fullmatch(plain)
    if not match or (match["sign"] and match["sign2"]) or not _is_unit(match):
        return None
    value = _value(match)
    if value is None:
        return None
    for word in match["scale"].split():
        value *= _SCALES[word]
    if match["percent"]:
        value /= 100
    return _Number(
        -value if "-" in (match["sign"], match["sign2"]) else value, bool(match["percent"])
    )


def _fraction(match: re.Match[str]) -> str:
    top, bottom = match[1] or match[3], match[2] or match[4]
    return f" {top.strip()}/{bottom.strip()} " if top and bottom else match[0]


def _value(match: re.Match[str]) -> Fraction | None:
    """Value of the digits matched, without sign, scale and percent."""
    if match["number"]:
        return _decimal(match["number"])
    if match["top"]:
        bottom = _decimal(match["bottom"])
        whole = int(match["whole"] or 0)
        return whole + _decimal(match["top"]) / bottom if bottom else None
    power = int(match["power"] or match["exponent"])
    if abs(power) > MAX_EXPONENT:
        return None
    return _decimal(match["decimal"] or match["mantissa"] or "1") * Fraction(10) ** power


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _is_unit(match: re.Match[str]) -> bool:
    """Whether what follows the number can be its unit."""
    unit = match["unit"]
    words = [word.casefold() for word in _WORD.findall(unit)]
    if not words:
        return not unit.strip(" ()") or unit.strip(" ()") in set("°'’$€£¥₹¢")
    # `5k` and `5M` may be thousands and millions, `2x` is algebra; `5m` is five metres, `5 a day`.
    one_letter = _ONE_LETTER_UNITS | ({"a"} if unit.startswith(" ") else set())
    return (
        len(words) <= MAX_UNIT_WORDS
        and not any(map(_NOT_UNIT.fullmatch, words))
        and unit.lstrip()[0] not in "-.)"
        and (len(words[0]) > 1 or words[0] in one_letter)
        and unit.strip() != "M"
    )


_CHOICE = re.compile(
    r"(?:(?:option|choice|answer) ?)?[(\[]? ?([A-Za-z]) ?(?:(?:[)\].:]+| - )(?P<rest>.*))?",
    re.IGNORECASE | re.DOTALL,
)
_ANOTHER = re.compile(r"\s*(?:and\b|or\b|[,/&+])", re.IGNORECASE)


def _choice(text: str) -> str | None:
    """The letter of a multiple-choice answer: B of `B`, `b)`, `(B)`, `B. Paris`, `option B`."""
    match = _CHOICE.fullmatch(_plain(text))
    if not match or _ANOTHER.match(match["rest"] or ""):
        return None
    return match[1].upper()


def _normal(text: str) -> str:
    """Text as `exact` compares it: NFC, case folded, white space collapsed, wrappers and final dot off."""
    plain = _plain(text) or " ".join(text.split())
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", plain).casefold())


# --- comparing -----------------------------------------------------------------------------------

_SENTENCE_END = re.compile(
    r"(?<=\S)[.!?;]\s|\n|,? (?:because|since)\b|, (?:so|which|as|where)\b", re.IGNORECASE
)


def _first_sentence(text: str) -> str:
    return _SENTENCE_END.split(text.strip()[: MAX_CHARS * 10], maxsplit=1)[0]


def _read_number(text: str) -> _Number | None:
    return _number(text) or _number(_first_sentence(text))


def _read_choice(text: str) -> str | None:
    return _choice(text) or _choice(_first_sentence(text))


def readable(text: str, verifier: Verifier) -> bool:
    """Whether `equal` can use this text as a reference."""
    text = final_answer(text) or text
    if verifier == "numeric":
        return _read_number(text) is not None
    if verifier == "choice":
        return _read_choice(text) is not None
    return bool(_normal(text))


def equal(answer: str, reference: str, verifier: Verifier) -> bool | None:
    """Compare a final answer with a reference; None if one of them cannot be read.

    `reference` may be a whole solution that ends in a marked answer. `numeric` compares exact
    rationals and has no tolerance: 1/2 equals 0.5, 0.333 is not 1/3. A percent sign on one side
    only is either a number (50% equals 0.5) or, beside a number above 1, a unit that the question
    asked for (50% equals 50, but 0.5% is not 0.5). `choice` compares the letter. `exact` compares
    text after Unicode NFC, case folding, collapsing white space and stripping Markdown, quotes,
    brackets and the final dot. If the answer goes on after its first sentence ("72. I hope this
    helps"), that sentence may be the answer.
    """
    marked = final_answer(reference) or reference
    if verifier == "numeric":
        ours, theirs = _read_number(answer), _read_number(marked)
        if ours is None or theirs is None:
            return None
        if ours.value == theirs.value or ours.percent == theirs.percent:
            return ours.value == theirs.value
        percent, bare = (ours, theirs) if ours.percent else (theirs, ours)
        return abs(bare.value) > 1 and percent.value * 100 == bare.value
    if verifier == "choice":
        letter, right = _read_choice(answer), _read_choice(marked)
        return None if letter is None or right is None else letter == right
    if not _normal(reference) or not _normal(answer):
        return None
    ours_or_its_start = {_normal(answer), _normal(_first_sentence(answer))}
    return not ours_or_its_start.isdisjoint({_normal(reference), _normal(marked)})
