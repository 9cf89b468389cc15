"""Is an instruction followed, strictly or loosely? And instructions made of a row of IFEval."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.instructions.arguments import Arguments, BadInstruction
from pipelines.instructions.kinds import KINDS, Found
from schemas.records import Instruction


def check(
    id: str,
    arguments: Mapping[str, Any],
    text: str,
    prompt_text: str | None = None,
    loose: bool = False,
) -> Found:
    """Whether the text follows the instruction, and what was found in it.

    Strictly: the text as it is; a blank text follows nothing. Loosely (IFEval, section 2.2): the
    text, or the text without its first line, its last line or both, or one of these without its
    asterisks. `prompt_text` is what `combination:repeat_prompt` wants where it has no argument.
    Raises BadInstruction for an unknown kind and for arguments that are missing, unknown or bad.
    """
    kind = KINDS.get(id)
    if kind is None:
        raise BadInstruction(f"{str(id)[:80]!r} is no kind of instruction")
    given = {key: value for key, value in arguments.items() if value is not None}
    unknown = sorted(map(str, given.keys() - set(kind.keys)))
    if unknown:
        raise BadInstruction(f"{id}: unknown argument {unknown[0]!r:.60}")
    if id == "combination:repeat_prompt" and prompt_text is not None:
        given.setdefault("prompt_to_repeat", prompt_text)
    read = Arguments(id, given)
    followed, found = kind.check(read, text)
    if not text.strip():
        return False, "empty"
    if loose and not followed:
        for name, variant in _variants(text):
            passed, what = kind.check(read, variant) if variant.strip() else (False, "")
            if passed:
                return True, f"{what} ({name})"
    return followed, found


def _variants(text: str) -> Iterator[tuple[str, str]]:
    lines = text.split("\n")
    cuts = [
        ("as it is", text),
        ("without the first line", "\n".join(lines[1:]).strip()),
        ("without the last line", "\n".join(lines[:-1]).strip()),
        ("without the first and last line", "\n".join(lines[1:-1]).strip()),
    ]
    yield from cuts[1:]
    for name, cut in cuts:
        if "*" in cut:
            yield f"{name}, without asterisks", cut.replace("*", "")


def follows(
    instruction: Instruction, text: str, prompt_text: str | None = None, loose: bool = False
) -> Found:
    """As `check`, for an instruction of a prompt."""
    return check(instruction.id, _arguments(instruction.arguments), text, prompt_text, loose)


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInstruction(f"arguments are not JSON: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        raise BadInstruction("arguments are no JSON object")
    return value


def of_row(
    instruction_ids: Sequence[str], kwargs: str | Sequence[Mapping[str, Any] | None]
) -> tuple[Instruction, ...]:
    """Instructions of a row of IFEval's form; `kwargs` may be JSON. Empty arguments are left out.

    Raises BadInstruction where the two columns differ in length or an instruction cannot be
    checked.
    """
    if isinstance(kwargs, str):
        try:
            kwargs = json.loads(kwargs)
        except (ValueError, RecursionError) as error:
            raise BadInstruction(f"kwargs are not JSON: {str(error)[:100]}") from error
    if not isinstance(kwargs, Sequence) or isinstance(kwargs, str):
        raise BadInstruction("kwargs are no list")
    if len(kwargs) != len(instruction_ids):
        raise BadInstruction(f"{len(instruction_ids)} instructions, {len(kwargs)} kwargs")
    made = []
    for id, given in zip(instruction_ids, kwargs, strict=True):
        if not isinstance(given, Mapping | None):
            raise BadInstruction(f"{str(id)[:80]}: arguments are no object")
        values = {key: value for key, value in (given or {}).items() if value is not None}
        # A prompt to be repeated may be the row's own, which is not known here.
        check(id, values, "a", prompt_text="a")
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        made.append(Instruction(id=id, arguments=text))
    return tuple(made)
