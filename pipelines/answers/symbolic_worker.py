r"""A process that reads and compares formulas: run by `pipelines.answers.symbolic`, never imported.

A formula is read by latex2sympy2_extended's grammar, which makes sympy objects and evaluates no
text. Two expressions are compared by their values to 50 digits at fixed points of their variables,
not by simplification: what agrees at all of them is the same, and what differs at one is not. There
is no tolerance: 0.333 is not 1/3.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sympy  # type: ignore[import-untyped]
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig  # type: ignore[import-untyped]
from latex2sympy2_extended.sets import FiniteSet  # type: ignore[import-untyped]
from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]
from sympy.core.relational import Relational  # type: ignore[import-untyped]

CPU_SECONDS = 5
"""Processor time for one comparison; beyond it the kernel ends the process."""
MEMORY_BYTES = 2 * 2**30
"""Address space of the process."""

DIGITS = 50
AGREE = sympy.Float("1e-35")
MAX_PARTS = 12
"""Larger sets are not matched item by item."""

_READ = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
)
_CASED = ConversionConfig(lowercase_symbols=False)
_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|det|lim"
)
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|pi|rho|sigma|tau|phi|omega|infty"
_TEXT = r"\\(?:text|textrm|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*"
_CHARS = (
    ("π", r"\pi "),
    ("∞", r"\infty "),
    ("≤", r"\le "),
    ("≥", r"\ge "),
    ("≠", r"\ne "),
    ("±", r"\pm "),
    ("∪", r"\cup "),
    ("∩", r"\cap "),
    ("∅", r"\emptyset "),
    ("∈", r"\in "),
    ("·", r"\cdot "),
    ("×", r"\times "),
    ("÷", r"\div "),
    ("−", "-"),
    ("\u2013", "-"),
    ("²", "^{2}"),
    ("³", "^{3}"),
    ("½", r"\frac{1}{2}"),
    ("\u00a0", " "),
    ("**", "^"),
    (r"\varnothing", r"\emptyset"),
    (r"\displaystyle", ""),
    (r"\degree", r"^\circ "),
    ("°", r"^\circ "),
    ("{,}", ""),
    (r",\!", ""),
    ("$", ""),
    (r"\%", "%"),
)
_REWRITES = (
    (re.compile(_TEXT + r"\{\s*([A-Za-z])\s*\}"), r"{\1}"),
    (re.compile(_TEXT + r"\{\s*(and|or)\s*\}", re.IGNORECASE), r" \\text{ \1 } "),
    # A unit: words behind an expression.
    (re.compile(rf"(?<=[\w}})])[\s~]*(?:\\[,;: ])*{_TEXT}\{{[^{{}}]*\}}(?:\^\{{?-?\d\}}?)?$"), ""),
    (
        re.compile(
            rf"(?<=[\d}})\w])\s+(?!(?:{_FUNCTIONS}|{_GREEK}|and|or)\b)[a-z]{{2,}}(?:\^\{{?[23]\}}?)?(?:\s+[a-z]+){{0,4}}$"
        ),
        "",
    ),
    (re.compile(r"√\s*\(([^()]*)\)|√\s*(\w+)"), r"\\sqrt{\1\2}"),
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS}|{_GREEK})(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(oo|inf|infinity)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"^(\\?[A-Za-z])\s*\\in(?![A-Za-z])"), ""),
    (re.compile(r"\s*[\s.,;:]+$"), ""),
)
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!(?:and|or)\b)[A-Za-z]{4,}")
_UNREADABLE = re.compile(
    r"\\(?:[lcv]?dots\w*|overline|bar|p?mod|bmod|equiv|text|mathrm|mathbf|mbox|operatorname)(?![A-Za-z])"
    r"|\.\.\.|…"
)
_NO_PROSE = re.compile(r"\\text\{ (?:and|or) \}|\\(?:begin|end)\{[a-z]+\}", re.IGNORECASE)
_OR = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])", re.IGNORECASE)
_AND = re.compile(r"(?<![A-Za-z])and(?![A-Za-z])", re.IGNORECASE)
_EITHER = re.compile(r"\\pm(?![A-Za-z])")


class Unreadable(Exception):
    """A text that is no formula, or two formulas whose comparison decides nothing."""


def read(text: str) -> Any:
    """The formula as a sympy object. Raises Unreadable."""
    for old, new in _CHARS:
        text = text.replace(old, new)
    text = " ".join(text.split())
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    checked = _NO_PROSE.sub(" ", text)
    if not text.strip() or _UNREADABLE.search(checked) or _PROSE.search(checked):
        raise Unreadable
    try:
        return _joined(_parsed(text), text)
    except Unreadable:
        signs = [_EITHER.sub(sign, text) for sign in ("+", "-")]
        if signs[0] == text:
            raise
        return FiniteSet(*map(_parsed, signs))


def _parsed(text: str) -> Any:
    try:
        found = latex2sympy(
            normalize_latex(text, config=_READ),
            is_real=True,
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_CASED,
        )
    except MemoryError:
        raise
    except Exception as error:
        # The grammar's ways to say no are many, plain Exception among them.
        raise Unreadable from error
    if not isinstance(found, sympy.Basic | sympy.MatrixBase):
        raise Unreadable
    return _exact(found)


def _joined(found: Any, text: str) -> Any:
    """Inequalities with `and` or `or` between them, which the grammar reads as a set of both."""
    if not isinstance(found, sympy.FiniteSet) or not all(map(_is_inequality, found.args)):
        return found
    if bool(_OR.search(text)) == bool(_AND.search(text)):
        raise Unreadable
    if _AND.search(text):
        return sympy.And(*found.args)
    if len(found.free_symbols) != 1:
        raise Unreadable
    return sympy.Union(*(part.as_set() for part in found.args))


def _is_inequality(found: Any) -> bool:
    return isinstance(found, Relational) and not isinstance(found, sympy.Eq)


def _exact(found: Any) -> Any:
    """Decimals as fractions, f(x) as a symbol, and i as the imaginary unit where nothing binds it."""
    changes: dict[Any, Any] = {
        number: sympy.Rational(str(number)) for number in found.atoms(sympy.Float)
    }
    changes |= {call: sympy.Symbol(str(call), real=True) for call in found.atoms(AppliedUndef)}
    if not found.atoms(sympy.Sum, sympy.Product):
        changes |= {symbol: sympy.I for symbol in found.free_symbols if symbol.name == "i"}
    return found.xreplace(changes) if changes else found


# --- comparing -----------------------------------------------------------------------------------


def same(ours: Any, theirs: Any) -> bool:
    """Whether two formulas are the same. Raises Unreadable where that cannot be told."""
    ours, theirs = _unnamed(ours, theirs), _unnamed(theirs, ours)
    if ours == theirs:
        return True
    for one, other in ((ours, theirs), (theirs, ours)):
        if isinstance(one, Relational | sympy.And) and isinstance(other, sympy.Set):
            return _relation_is_set(one, other)
    if isinstance(ours, Relational) and isinstance(theirs, Relational):
        return _same_relation(ours, theirs)
    if isinstance(ours, sympy.And) and isinstance(theirs, sympy.And):
        if ours.free_symbols == theirs.free_symbols and len(ours.free_symbols) == 1:
            return same(ours.as_set(), theirs.as_set())
        return _unordered(ours.args, theirs.args)
    for kind in (sympy.FiniteSet, sympy.Union):
        if isinstance(ours, kind) and isinstance(theirs, kind):
            return _unordered(ours.args, theirs.args)
    if _is_pair(ours) and _is_pair(theirs):
        return _same_pair(ours, theirs)
    if isinstance(ours, sympy.MatrixBase) and isinstance(theirs, sympy.MatrixBase):
        return ours.shape == theirs.shape and all(map(same, ours.flat(), theirs.flat()))
    for one, other in ((ours, theirs), (theirs, ours)):
        if (
            isinstance(one, sympy.FiniteSet)
            and len(one.args) == 1
            and isinstance(other, sympy.Expr)
        ):
            return same(one.args[0], other)
    if isinstance(ours, sympy.Expr) and isinstance(theirs, sympy.Expr):
        return _same_values(ours, theirs)
    if any(isinstance(part, Relational) for part in (*ours.args, *theirs.args)):
        raise Unreadable
    known = (sympy.Expr, sympy.Set, sympy.Tuple, sympy.MatrixBase, Relational, sympy.And)
    if isinstance(ours, known) and isinstance(theirs, known):
        return False
    raise Unreadable


def _unnamed(one: Any, other: Any) -> Any:
    """The value of `x = 5` beside a formula that names nothing, and of `x = 1 or x = 2`."""
    if isinstance(one, sympy.And) and all(isinstance(part, sympy.Eq) for part in one.args):
        parts = getattr(one, "_unsorted_args", one.args)
        if _is_name(parts[0].lhs):  # x = 2 + 3 = 5
            one = sympy.Eq(parts[0].lhs, parts[-1].rhs, evaluate=False)
    if isinstance(one, sympy.FiniteSet) and one.args:
        names = {part.lhs for part in one.args if isinstance(part, sympy.Eq)}
        if len(names) == 1 and _is_name(*names):
            return sympy.FiniteSet(
                *(part.rhs if isinstance(part, sympy.Eq) else part for part in one.args)
            )
    if isinstance(one, sympy.Eq) and not isinstance(other, Relational | sympy.And):
        if _is_name(one.lhs):
            return one.rhs
        if _is_name(one.rhs):
            return one.lhs
        raise Unreadable
    return one


def _is_name(found: Any) -> bool:
    if _is_pair(found):
        return all(isinstance(part, sympy.Symbol) for part in _pair(found)[1])
    return isinstance(found, sympy.Symbol)


def _is_pair(found: Any) -> bool:
    return isinstance(found, sympy.Interval | sympy.Tuple)


def _same_pair(ours: Any, theirs: Any) -> bool:
    """Tuples and intervals: the grammar takes (1, 2) for an open interval, (2, 1) for a tuple."""
    (our_kind, our_items), (their_kind, their_items) = _pair(ours), _pair(theirs)
    return (
        our_kind == their_kind
        and len(our_items) == len(their_items)
        and all(map(same, our_items, their_items))
    )


def _pair(found: Any) -> tuple[tuple[bool, bool], Sequence[Any]]:
    if isinstance(found, sympy.Interval):
        return (bool(found.left_open), bool(found.right_open)), (found.start, found.end)
    return (True, True), found.args


def _unordered(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether two collections hold the same items, repeats counted once."""
    if max(len(ours), len(theirs)) > MAX_PARTS:
        raise Unreadable
    return all(any(same(a, b) for b in theirs) for a in ours) and all(
        any(same(a, b) for a in ours) for b in theirs
    )


def _relation_is_set(relation: Any, found: Any) -> bool:
    """`x > 3` beside `(3, \\infty)`."""
    if len(relation.free_symbols) != 1:
        raise Unreadable
    return same(relation.as_set(), found)


_FLIPPED = {sympy.Gt: sympy.Lt, sympy.Ge: sympy.Le}


def _same_relation(ours: Any, theirs: Any) -> bool:
    """Whether one relation is the other, with both sides moved about or multiplied."""
    (our_kind, our_side), (their_kind, their_side) = _one_sided(ours), _one_sided(theirs)
    if our_kind is not their_kind:
        return False
    ratios = [a / b for a, b in _values(our_side, their_side) if b != 0]
    if not ratios:
        raise Unreadable
    if any(abs(ratio - ratios[0]) > AGREE * abs(ratios[0]) for ratio in ratios) or not ratios[0]:
        return False
    return our_kind in (sympy.Eq, sympy.Ne) or bool(ratios[0].is_positive)


def _one_sided(found: Any) -> tuple[Callable[..., Any], Any]:
    """The relation to 0, as =, !=, < or <=."""
    if type(found) in _FLIPPED:
        return _FLIPPED[type(found)], found.rhs - found.lhs
    return type(found), found.lhs - found.rhs


# Ratios of primes, so that no formula that a person writes is special there.
_POINTS = (("97/89", "101/83"), ("-71/103", "79/107"), ("131/31", "-109/37"), ("17/113", "173/29"))
_STEP = sympy.Rational(211, 997)


def _values(ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
    """Values of both at points where both are real, or finite where they are real at none."""
    symbols = sorted(ours.free_symbols | theirs.free_symbols, key=str)
    real: list[tuple[Any, Any]] = []
    other: list[tuple[Any, Any]] = []
    for start, step in _POINTS if symbols else _POINTS[:1]:
        at = {
            symbol: sympy.Rational(start) + index * sympy.Rational(step) * (1 + index * _STEP)
            for index, symbol in enumerate(symbols)
        }
        a, b = (found.xreplace(at).doit().evalf(DIGITS) for found in (ours, theirs))
        if not (a.is_number and b.is_number) or a.has(*_NO_VALUE) or b.has(*_NO_VALUE):
            continue
        if not (_is_value(a) and _is_value(b)):
            raise Unreadable
        (real if _is_real(a) and _is_real(b) else other).append((a, b))
    return real or other


_NO_VALUE = (sympy.nan, sympy.zoo)


def _is_real(value: Any) -> bool:
    return bool(value.is_extended_real)


def _is_value(value: Any) -> bool:
    """A number in digits: not a sum or integral that could not be worked out."""
    re_part, im_part = value.as_real_imag()
    return all(isinstance(part, sympy.Number) for part in (re_part, im_part))


def _same_values(ours: Any, theirs: Any) -> bool:
    values = _values(ours, theirs)
    if not values:
        raise Unreadable
    return all(_agree(a, b) for a, b in values)


def _agree(a: Any, b: Any) -> bool:
    if a == b:
        return True
    if a.is_infinite or b.is_infinite:
        return False
    size = max(abs(a), abs(b))
    # Cancellation leaves a zero that is none in its last digits.
    return bool(size < sympy.Float("1e-45")) or bool(abs(a - b) <= AGREE * size)


# --- serving -------------------------------------------------------------------------------------


def answer(request: dict[str, str]) -> bool | None:
    """Whether two formulas are the same, or one can be read; None if they cannot be compared."""
    try:
        theirs = read(request["reference"])
        if "answer" not in request:
            return True
        return same(read(_like(request["answer"], theirs)), theirs)
    except (Unreadable, RecursionError):
        return None
    except MemoryError:
        raise
    except Exception:
        # sympy fails on hostile input in any way it likes; that says nothing about the answer.
        return None


def _like(text: str, theirs: Any) -> str:
    """A bare `3, 4` beside a reference in round brackets is meant in order."""
    if _is_pair(theirs) and _pair(theirs)[0] == (True, True):
        bare = text.strip().strip("$")
        if "," in bare and not re.search(r"[(\[{=]", bare):
            return f"({bare})"
    return text


def serve(lines: Iterable[str]) -> None:
    """Answer one JSON request a line with one JSON line, within the limits."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(3000)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    print("ready", flush=True)
    for line in lines:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + CPU_SECONDS, hard))
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(sys.stdin)
