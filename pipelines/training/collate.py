"""Emitted rows as token rows, and token rows as padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from pipelines.training.config import Target
from pipelines.training.model import render_finished, render_prompt
from schemas.errors import UserError
from schemas.records import Reject

Ids = np.ndarray[Any, np.dtype[np.int32]]
Chat = Sequence[dict[str, str]]
CHUNK = 1024


@dataclass(frozen=True, slots=True)
class PairRow:
    """Token ids of both finished conversations, and the pair's target."""

    chosen: Ids
    rejected: Ids
    probability: float
    margin: float

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))

    @property
    def tokens(self) -> int:
        """Tokens of both."""
        return len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class StepRow:
    """Token ids of a conversation, each labelled step's span (see `encode_steps`), its target."""

    ids: Ids
    spans: Ids
    targets: np.ndarray[Any, np.dtype[np.float32]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Tokens of the conversation."""
        return len(self.ids)


def encode_finished(tokenizer: PreTrainedTokenizerFast, chats: Sequence[Chat]) -> list[Ids]:
    """Token ids of finished conversations; the last one is EOS.

    Raises jinja2's TemplateError for a conversation that the template refuses, and UserError if the
    tokenizer does not read its own EOS text as EOS.
    """
    if not chats:
        return []
    texts = [render_finished(tokenizer, chat) for chat in chats]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    if any(ids[-1] != tokenizer.eos_token_id for ids in encoded):
        raise UserError(f"the tokenizer does not read its EOS text {tokenizer.eos_token!r} as EOS")
    return [np.asarray(ids, np.int32) for ids in encoded]


def encode_steps(
    tokenizer: PreTrainedTokenizerFast, prompt: Chat, completions: Sequence[str]
) -> tuple[Ids, Ids]:
    """Token ids of prompt, steps and EOS, and each step's span: (steps, 3) token indices of the
    answer's first token, the step's first and the step's last.

    A step's last token is the last one that starts before the step's last character ends, by the
    tokenizer's character offsets; a token across a border belongs to the step it starts in. Where
    two steps would share a token, or a step has none, ValueError is raised.
    """
    start = render_prompt(tokenizer, prompt)
    text = start + "".join(completions) + str(tokenizer.eos_token)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = np.asarray([first for first, _ in encoded["offset_mapping"]])
    borders = len(start) + np.cumsum([len(step) for step in completions])
    ends = np.searchsorted(starts, borders, side="left") - 1
    before = np.searchsorted(starts, len(start), side="left") - 1
    if len(ends) and not (np.diff(ends, prepend=before) > 0).all():
        raise ValueError("a step has no token of its own")
    first = np.append(before, ends[:-1]) + 1
    spans = np.stack([np.full_like(ends, before + 1), first[: len(ends)], ends], axis=1)
    return np.asarray(encoded["input_ids"], np.int32), spans.astype(np.int32)


def pair_rows(
    table: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length: int, stage: str
) -> tuple[list[PairRow], list[Reject]]:
    """`Preference` rows as token rows; those that are too long or that the template refuses come
    back as rejects (`too_long`, `bad_template`).
    """
    rows: list[PairRow] = []
    rejects: list[Reject] = []
    columns = ["id", "prompt", "chosen", "rejected", "probability", "margin"]
    for row in _rows(table, columns):
        try:
            chosen, rejected = encode_finished(
                tokenizer, [row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]]
            )
        except TemplateError as error:
            rejects.append(_reject(row, stage, "bad_template", str(error)))
            continue
        made = PairRow(chosen, rejected, row["probability"], row["margin"])
        if len(made) > max_length:
            rejects.append(_too_long(row, stage, len(made), max_length))
        else:
            rows.append(made)
    return rows, rejects


def step_rows(
    table: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length: int, target: Target, stage: str
) -> tuple[list[StepRow], list[Reject]]:
    """`StepExample` rows as token rows. A step's target is, of the following, the first one known:
    value, P(sound) and label for `value`; P(sound) and label for `sound`; the label for `label`.

    Rows come back as rejects where they are too long (`too_long`), where the template refuses them
    (`bad_template`), where a step has no token of its own (`no_step_token`), and where no step has
    a target (`no_labels`).
    """
    rows: list[StepRow] = []
    rejects: list[Reject] = []
    for row in _rows(table, ["id", "prompt", "completions", "labels", "values", "sound"]):
        targets = _targets(row, target)
        known = ~np.isnan(targets)
        if not known.any():
            rejects.append(_reject(row, stage, "no_labels", f"no step has a {target} to train on"))
            continue
        try:
            ids, spans = encode_steps(tokenizer, row["prompt"], row["completions"])
        except TemplateError as error:
            rejects.append(_reject(row, stage, "bad_template", str(error)))
            continue
        except ValueError as error:
            rejects.append(_reject(row, stage, "no_step_token", str(error)))
            continue
        if len(ids) > max_length:
            rejects.append(_too_long(row, stage, len(ids), max_length))
        else:
            rows.append(StepRow(ids, spans[known], targets[known]))
    return rows, rejects


def collate_pairs(rows: Sequence[PairRow], pad: int) -> dict[str, torch.Tensor]:
    """Ids (2b, tokens) with all chosen first, read at each last token; targets (b,)."""
    ids = [r.chosen for r in rows] + [r.rejected for r in rows]
    return {
        **collate_ids(ids, [[len(i) - 1] for i in ids], pad),
        "probability": torch.tensor([r.probability for r in rows], dtype=torch.float32),
        "margin": torch.tensor([r.margin for r in rows], dtype=torch.float32),
    }


def collate_steps(rows: Sequence[StepRow], pad: int) -> dict[str, torch.Tensor]:
    """Ids (b, tokens), the labelled steps' spans; targets (labelled steps,)."""
    batch = collate_spans([r.ids for r in rows], [r.spans for r in rows], pad)
    return {**batch, "target": torch.from_numpy(np.concatenate([r.targets for r in rows]))}


def collate_ids(ids: Sequence[Ids], reads: Sequence[Any], pad: int) -> dict[str, torch.Tensor]:
    """Ids padded on the right, and the (row, column) index of every token that is read."""
    padded = np.full((len(ids), max(map(len, ids))), pad, np.int64)
    for k, row in enumerate(ids):
        padded[k, : len(row)] = row
    rows = np.repeat(np.arange(len(ids)), [len(r) for r in reads])
    return {
        "input_ids": torch.from_numpy(padded),
        "rows": torch.from_numpy(rows),
        "columns": torch.from_numpy(np.concatenate([np.asarray(r, np.int64) for r in reads])),
    }


def collate_spans(ids: Sequence[Ids], spans: Sequence[Any], pad: int) -> dict[str, torch.Tensor]:
    """The same for steps: read at their last tokens, with where they and their answers begin."""
    every = torch.from_numpy(np.concatenate(spans).astype(np.int64))
    read = collate_ids(ids, [span[:, 2] for span in spans], pad)
    return {**read, "begins": every[:, 0], "starts": every[:, 1]}


_FIRST: dict[Target, tuple[str, ...]] = {
    "value": ("values", "sound"),
    "sound": ("sound",),
    "label": (),
}


def _targets(row: dict[str, Any], target: Target) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A target a step, NaN where none is known."""
    hard = [float(label) if label in (0, 1) else np.nan for label in row["labels"]]
    known = zip(*(row[column] for column in _FIRST[target]), hard, strict=True)
    return np.asarray([next(v for v in step if v is not None) for step in known], np.float32)


def _rows(table: pa.Table, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in table.select(columns).to_batches(max_chunksize=CHUNK):
        yield from batch.to_pylist()


def _too_long(row: dict[str, Any], stage: str, length: int, most: int) -> Reject:
    return _reject(row, stage, "too_long", f"{length} tokens, max_length is {most}")


def _reject(row: dict[str, Any], stage: str, code: str, detail: str) -> Reject:
    return Reject(unit=row["id"], stage=stage, code=code, detail=" ".join(detail.split())[:500])
