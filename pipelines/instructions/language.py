"""Which language a text is in: py3langid, held to the languages that IFEval's own detector knows."""

from __future__ import annotations

from functools import cache
from typing import Any

_CODES = (
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr "
    "ne nl no pa pl pt ro ru sk sl so sq sv sw ta te th tl tr uk ur vi zh"
)
LANGUAGES = frozenset(_CODES.split())
"""ISO 639-1 codes. The detector knows rarer ones, too: short texts would often be taken for them."""


def language(text: str) -> str | None:
    """ISO 639-1 code of the likeliest language; None where the text holds nothing to tell it by.

    The same in every process. A text of fewer than four words is often taken for a relative of its
    language.
    """
    if not any(map(str.isalpha, text)):
        return None
    detector = _detector()
    code, probability = detector.classify(text)
    # Nothing of the text is known to the detector: all languages are as likely.
    return None if probability < 1.01 / len(LANGUAGES) else str(code)


@cache
def _detector() -> Any:
    from py3langid.langid import (
        MODEL_FILE,
        LanguageIdentifier,
    )

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages(LANGUAGES)
    return detector
