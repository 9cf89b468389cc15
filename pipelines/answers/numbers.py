"""Read a text as one exact number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from pipelines.answers.text import first_sentence, plain

MAX_EXPONENT = 1000
"""Larger powers of ten are not read: 1e999999999 must not fill the memory."""

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
_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}|\\[dt]?frac\s?(\d)\s?(\d)")
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
class Number:
    """A number as it was written."""

    value: Fraction
    percent: bool
    """Whether it bore a percent sign, which the value has in it."""
    unit: str
    """What stood behind it."""


def parse_number(text: str) -> Fraction | None:
    r"""Read a text that is one number, exactly; None if it is not.

    Understood: signs (also the Unicode minus), thousands separators of the form 1,234 (so a comma
    is never a decimal sign), decimals, fractions 1/2, ½ and `\frac{1}{2}`, mixed numbers 1 1/2,
    scientific notation (1e3, 2 x 10^3), scale words (3 million, 2 dozen), percent (50% is exactly
    1/2), currency signs, the right side of `x = 72`, a final dot and up to twelve words of unit
    behind it ("72 apples a day"). Not a number: two of them (3 or 4, 3-4), algebra (2x), 2^10, a zero
    denominator, more than 1,000 characters, a power of ten beyond 1,000.
    """
    number = number_as_written(text)
    return number.value if number else None


def read_number(text: str) -> Number | None:
    """The number that the text, or else its first sentence, is."""
    return number_as_written(text) or number_as_written(first_sentence(text))


def number_as_written(text: str) -> Number | None:
    """The number that the text is; None if it is none."""
    # An escaped dollar is money; a bare pair of them is LaTeX.
    bare = plain(text.replace("\\$", "USD "))
    if "=" in bare:
        left, _, right = bare.rpartition("=")
        if not _LEFT_SIDE.fullmatch(left.strip()):
            return None
        bare = plain(right)
    bare = " ".join(_FRACTION.sub(_fraction, bare).split())
    match = _NUMBER.fullmatch(bare)
    if not match or (match["sign"] and match["sign2"]) or not _is_unit(match):
        return None
    value = _value(match)
    if value is None:
        return None
    for word in match["scale"].split():
        value *= _SCALES[word]
    if match["percent"]:
        value /= 100
    if "-" in (match["sign"], match["sign2"]):
        value = -value
    return Number(value, bool(match["percent"]), match["unit"].strip())


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
