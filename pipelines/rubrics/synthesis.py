"""Make rubrics: each method drafts criteria, like ones are merged, and a rubric holds the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pipelines.config import Advance, silent
from pipelines.engines.base import Engine
from pipelines.prompting import load
from pipelines.rubrics import contrast, extraction, nuggets
from pipelines.rubrics import feedback as feedbacks
from pipelines.rubrics.config import Method, RubricsConfig, is_held_out
from pipelines.rubrics.drafting import (
    STAGE,
    TEMPLATES,
    Comparison,
    Draft,
    Drawn,
    Writer,
    reject,
)
from pipelines.rubrics.merging import Embed, select
from pipelines.rubrics.rubric_file import read_rubric, rubric_paths
from schemas.errors import PlanError
from schemas.record import digest
from schemas.records import Criterion, Pair, Prompt, Reject, Response, Rubric

NAME = STAGE
VERSION = 1

Row = TypeVar("Row", Criterion, Rubric, Reject)


_ASKED = ("contrast", "explanation", "feedback", "nuggets", "ranking", "rules")


def templates_digest() -> str:
    """Digest of the prompt templates that are asked: other words are another stage."""
    return digest("templates", [load(TEMPLATES, name).digest for name in _ASKED])


class Made(NamedTuple):
    """Rubrics, the criteria they name, and what could not be used; each row stands once."""

    criteria: list[Criterion]
    rubrics: list[Rubric]
    rejects: list[Reject]


@dataclass(frozen=True)
class _Material:
    """What rubrics may be made from: nothing of it holds a pair that is kept for the proof."""

    prompts: Sequence[Prompt]
    responses: Mapping[str, Response]
    pairs: Sequence[Pair]
    comparisons: Sequence[Comparison]
    subjects: Sequence[feedbacks.Subject]


async def synthesize(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    pairs: Sequence[Pair],
    config: RubricsConfig,
    engines: Mapping[str, Engine],
    seed: int,
    advance: Advance = silent,
    embed: Embed | None = None,
    feedback: Mapping[str, Sequence[str]] | None = None,
) -> Made:
    """Rubrics by every method of the config; the order of the rows given is of no account.

    Of each method a rubric a prompt, or one for any prompt: `extraction` and the contrasts of
    `mined` always make the latter, `nuggets` the former. Pairs of held-out prompts are not used, nor
    feedback on their responses; their text and reference are. `feedback`: by response id, one text
    an annotator. Pairs without a side (no label, or a tie) tell nothing and are passed over. Rejects
    with stable codes say what stopped: `missing_prompt` and `missing_response` (of a pair), an
    engine's reply codes, and those of `drafting.criterion`, `feedback.draw` and `merging.select`.
    Raises PlanError where the engine or the person's file is not there or cannot be used.
    """
    material, rejects = _material(prompts, responses, pairs, config, seed, feedback or {})
    made = Made([], [], rejects)
    for method in dict.fromkeys(config.methods):
        if method == "person":
            _take(config.paths, material, made)
        elif method == "mined":
            _mine(material, seed, made)
        else:
            writer = _writer(config, engines, seed, advance)
            drawn = await _draw(method, material, config, writer, seed, embed)
            made.rejects.extend(drawn.rejects)
            _fill(method, drawn.drafts, config, embed, made)
    return Made(_once(made.criteria), _once(made.rubrics), _once(made.rejects))


def _take(paths: Sequence[str], material: _Material, made: Made) -> None:
    """People's own rubrics, from files; one for a prompt that is not here is of no use."""
    here = {prompt.id for prompt in material.prompts}
    for path in rubric_paths(paths):
        rubric, criteria = read_rubric(path)
        if rubric.prompt_id is not None and rubric.prompt_id not in here:
            made.rejects.append(reject(rubric.id, "missing_prompt", rubric.prompt_id))
            continue
        made.criteria.extend(criteria)
        made.rubrics.append(rubric)


def _material(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    pairs: Sequence[Pair],
    config: RubricsConfig,
    seed: int,
    feedback: Mapping[str, Sequence[str]],
) -> tuple[_Material, list[Reject]]:
    asked = {prompt.id: prompt for prompt in sorted(prompts, key=lambda row: row.id)}
    given = {response.id: response for response in sorted(responses, key=lambda row: row.id)}
    comparisons: list[Comparison] = []
    usable: list[Pair] = []
    rejects = []
    of_response: dict[str, list[str]] = {}
    for pair in sorted(pairs, key=lambda row: row.id):
        if is_held_out(pair.prompt_id, seed, config.held_out):
            continue
        if pair.prompt_id not in asked:
            rejects.append(reject(pair.id, "missing_prompt", pair.prompt_id))
            continue
        gone = [r for r in (pair.response_a, pair.response_b) if r not in given]
        if gone:
            rejects.append(reject(pair.id, "missing_response", ", ".join(gone)))
            continue
        for side in (pair.response_a, pair.response_b):
            of_response.setdefault(side, []).append(pair.id)
        if pair.label in ("a", "b"):
            a, b = given[pair.response_a], given[pair.response_b]
            best_first = (a, b) if pair.label == "a" else (b, a)
            usable.append(pair)
            comparisons.append(Comparison(asked[pair.prompt_id], best_first, (pair,)))
    subjects = [
        feedbacks.Subject(
            asked[response.prompt_id],
            response,
            tuple(of_response.get(response.id, ())),
            tuple(feedback[response.id]),
        )
        for response in given.values()
        if response.id in feedback
        and response.prompt_id in asked
        and not is_held_out(response.prompt_id, seed, config.held_out)
    ]
    return _Material(list(asked.values()), given, usable, comparisons, subjects), rejects


def _writer(
    config: RubricsConfig, engines: Mapping[str, Engine], seed: int, advance: Advance
) -> Writer:
    if config.engine is None or config.engine not in engines:
        known = ", ".join(sorted(engines)) or "none"
        raise PlanError(f"rubrics.engine: no engine {config.engine!r}; there are: {known}")
    sampling = config.sampling.with_seed(seed)
    engine = engines[config.engine]
    return Writer(engine, sampling, config.samples, config.max_criteria, advance)


async def _draw(
    method: Method,
    material: _Material,
    config: RubricsConfig,
    writer: Writer,
    seed: int,
    embed: Embed | None,
) -> Drawn:
    if method == "contrastive":
        comparisons = material.comparisons
        if config.contrast == "lists":
            grouped: dict[str, list[Comparison]] = {}
            for comparison in comparisons:
                grouped.setdefault(comparison.prompt.id, []).append(comparison)
            comparisons = [
                c for own in grouped.values() for c in contrast.ranked(own, material.responses)
            ]
        return await contrast.draw(comparisons, writer)
    if method == "extraction":
        explained = extraction.drawn_by_hash(material.comparisons, config.max_pairs, seed)
        return await extraction.draw(explained, writer)
    if method == "feedback":
        return await feedbacks.draw(material.subjects, writer, embed)
    return await nuggets.draw(material.prompts, writer)


def _fill(
    method: Method,
    drafts: Sequence[Draft],
    config: RubricsConfig,
    embed: Embed | None,
    made: Made,
) -> None:
    """Add the rubrics of a method's drafts."""
    general = config.scope == "general" and method != "nuggets"
    grouped: dict[str | None, list[Draft]] = {}
    for draft in drafts:
        grouped.setdefault(None if general else draft.prompt_id, []).append(draft)
    for prompt_id, own in grouped.items():
        kept, rejects = select(own, config.max_criteria, config.similar, embed)
        made.rejects.extend(rejects)
        made.criteria.extend(draft.criterion for draft in kept)
        made.rubrics.append(
            Rubric(
                prompt_id=prompt_id,
                criteria=tuple(draft.criterion.id for draft in kept),
                method=method,
                # Also of those left out: they had a part in what was selected.
                pairs=tuple(sorted({pair for draft in own for pair in draft.pairs})),
            )
        )


def _mine(material: _Material, seed: int, made: Made) -> None:
    """Hard rules found by code: of each prompt, and of what better responses have in common."""
    from pipelines.rubrics.mining import mine_pairs, mine_prompt

    for prompt in material.prompts:
        _add_mined(mine_prompt(prompt), prompt.id, (), made)
    if material.pairs:
        known = {pair.response_a for pair in material.pairs}
        known |= {pair.response_b for pair in material.pairs}
        shown = [response for id, response in material.responses.items() if id in known]
        found = mine_pairs(material.prompts, shown, material.pairs, seed)
        _add_mined(found, None, tuple(pair.id for pair in material.pairs), made)


def _add_mined(
    found: Sequence[Criterion], prompt_id: str | None, pairs: tuple[str, ...], made: Made
) -> None:
    criteria = _once(list(found))
    if criteria:
        made.criteria.extend(criteria)
        ids = tuple(row.id for row in criteria)
        made.rubrics.append(Rubric(prompt_id=prompt_id, criteria=ids, method="mined", pairs=pairs))


def _once(rows: list[Row]) -> list[Row]:
    """Rows without repeats: a table's ids are unique."""
    return list({row.id: row for row in rows}.values())
