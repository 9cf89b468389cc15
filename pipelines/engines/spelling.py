"""A model's tokenizer as it is needed to continue a text token for token.

Prompts are tokenised as before, with the special tokens that a chat template writes. What a model
wrote is something else: no special token is read in it (a reply holds none, and untrusted text must
not smuggle one in), and it is spelled as it stands after a prompt, so that a tokenizer which puts a
space before every text (SentencePiece) puts none there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.engines.base import Tokens
from schemas.errors import EngineError, MissingExtra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BEFORE = ("\n", ":", ")", "0")
"""What stands in for the prompt, in turn: few tokenizers have a token that joins each of them to what
follows."""


class Speller:
    """Cuts texts into a tokenizer's tokens; thread-safe, since it keeps copies of its own."""

    def __init__(self, backend: Tokenizer) -> None:
        self._prompts = _copy(backend)
        self._texts = _copy(backend)
        self._texts.encode_special_tokens = True
        self.prompt = lru_cache(maxsize=256)(self._prompt)
        """Token ids of a prompt's text, the special tokens in it read as such, none added."""

    def tokens(self, text: str) -> Tokens | None:
        """See `Engine.tokens`."""
        ids = self._encode(text)
        for start in _BEFORE:
            before = self._encode(start)
            if (found := self._spelled(text, before, ids)) is not None:
                return found
            both = self._encode(start + text)
            if both[: len(before)] == before:
                found = self._spelled(text, before, both[len(before) :])
                if found is not None:
                    return found
        return None

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._texts.encode(text, add_special_tokens=False).ids
        return ids

    def _prompt(self, text: str) -> tuple[int, ...]:
        return tuple(self._prompts.encode(text, add_special_tokens=False).ids)

    def _spelled(self, text: str, before: list[int], ids: list[int]) -> Tokens | None:
        """These tokens, if they are the text where they follow those before.

        Ends are found by decoding, not taken from the tokenizer's offsets: those count half a
        character as all of it, and some leave white space out.
        """
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        ends: list[int] = []
        at = 0
        try:
            for token in before:
                stream.step(self._texts, token)
            for token in ids:
                piece = stream.step(self._texts, token) or ""
                if not text.startswith(piece, at):
                    return None
                at += len(piece)
                ends.append(at)
        except Exception as error:
            # The library raises a bare Exception where a token changes what stands before it.
            if type(error) is not Exception:
                raise
            return None
        return Tokens(tuple(ids), tuple(ends)) if at == len(text) else None


def file_speller(folder: Path) -> Speller | None:
    """Of a folder's tokenizer.json; None where it or the library `tokenizers` is not there.

    Raises EngineError where it cannot be read.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        return Speller(Tokenizer.from_file(str(file)))
    except Exception as error:  # the library raises no other kind
        raise EngineError(f"{file}: is no tokenizer: {error}") from error


def model_speller(folder: Path) -> Speller | None:
    """Of the tokenizer that transformers makes of a model folder; None for one written in Python.

    Raises EngineError where there is none that can be loaded.
    """
    try:
        from tokenizers import Tokenizer
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra(error.name or "transformers", "local") from error
    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise EngineError(f"cannot load the tokenizer at {folder}: {line}") from error
    backend = getattr(loaded, "backend_tokenizer", None)
    return Speller(backend) if isinstance(backend, Tokenizer) else None


def _copy(backend: Tokenizer) -> Tokenizer:
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy
