"""The log-probability of a text that is given: which tokens it has, and the passes that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.engines.base import Tokens
from schemas.errors import BadReply

if TYPE_CHECKING:
    import torch

    from pipelines.engines.prefix_cache import PrefixCache

SCORED = 2**24
"""Most logits (rows times columns times vocabulary) of a pass; with a copy in float64 256 MiB."""


@dataclass(eq=False, slots=True)
class ScoredRow:
    """A text to score after its prompt, both at least one token long; `owner` is the caller's."""

    prompt: tuple[int, ...]
    text: tuple[int, ...]
    owner: Any


def scored_ids(
    spelled: Tokens | None, encode: Callable[[str], Sequence[int]], before: str, text: str
) -> tuple[int, ...]:
    """Tokens of a text that is scored after the text before it.

    The text's own, as the tokenizer spells it; where that cannot spell it (`spelled` is none), what
    both texts in one piece have beyond the tokens of the first. Raises BadReply `bad_request` where
    one token holds the end of the first and the start of the second.
    """
    if spelled is not None:
        return spelled.ids
    return beyond(encode(before), encode(before + text))


def beyond(before: Sequence[int], whole: Sequence[int]) -> tuple[int, ...]:
    """The tokens of `whole` after those before. Raises BadReply `bad_request` if they are no start."""
    if len(whole) <= len(before) or list(whole[: len(before)]) != list(before):
        raise BadReply("bad_request", "the text to score has no tokens of its own after the prompt")
    return tuple(whole[len(before) :])


def score(
    model: Any, prefixes: PrefixCache, rows: Sequence[ScoredRow]
) -> Iterator[tuple[ScoredRow, float]]:
    """Every row with the sum of its text's log-probabilities (nats), in no certain order.

    Teacher forcing: sum over t of log p(text[t] | prompt, text[:t]), under the model itself. Prompts
    come from the prefix cache, so that texts after one prompt have it read once. Under
    `inference_mode`. What a row gets does not depend on the others but for rounding.
    """
    groups: dict[tuple[int, ...], list[ScoredRow]] = {}
    for row in rows:
        groups.setdefault(row.prompt[:-1], []).append(row)
    for places in prefixes.read(list(groups)):
        known = [(row, path) for prefix, path in places.items() for row in groups[prefix]]
        for batch in _alike(known):
            sums = _sums(model, prefixes, batch).tolist()
            yield from zip((row for row, _ in batch), sums, strict=True)


def _sums(
    model: Any, prefixes: PrefixCache, batch: Sequence[tuple[ScoredRow, list[int]]]
) -> torch.Tensor:
    """Log-probabilities (rows,) of texts after prompts whose keys and values lie at the paths.

    What is known is padded on the left, the text on the right, as where prompts are read. The first
    token read is the prompt's last, which tells the text's first.
    """
    import numpy as np
    import torch
    from transformers.cache_utils import Cache, DynamicLayer

    device = prefixes.device
    before = max(len(path) for _, path in batch)
    length = max(len(row.text) for row, _ in batch)
    past = np.zeros((len(batch), before), np.int64)
    ids = np.zeros((len(batch), length), np.int64)
    told = np.zeros((len(batch), length), np.int64)
    for i, (row, path) in enumerate(batch):
        past[i, before - len(path) :] = path
        ids[i, : len(row.text)] = (row.prompt[-1], *row.text[:-1])
        told[i, : len(row.text)] = row.text
    start = np.array([len(path) for _, path in batch])[:, None]
    lengths = np.array([len(row.text) for row, _ in batch])[:, None]
    columns = np.arange(length)
    # Padding stays within the context: a model may have a table of positions.
    positions = start + np.minimum(columns, lengths - 1)
    seen = (np.arange(before + length) >= before - start).astype(np.int64)
    put = {
        name: torch.from_numpy(array).to(device)
        for name, array in {
            "ids": ids,
            "told": told,
            "positions": positions,
            "seen": seen,
            "real": columns < lengths,
            "past": past,
        }.items()
    }
    layers = []
    for pools in zip(prefixes.keys, prefixes.values, strict=True):
        layer = DynamicLayer()
        if before:
            layer.update(*(_taken(pool, put["past"]) for pool in pools))
        layers.append(layer)
    cache = Cache(layers=list(layers))
    total = torch.zeros(len(batch), dtype=torch.float64, device=device)
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    step = max(1, SCORED // (len(batch) * vocabulary))
    for first in range(0, length, step):
        part = slice(first, min(first + step, length))
        output = model(
            input_ids=put["ids"][:, part],
            attention_mask=put["seen"][:, : before + part.stop],
            position_ids=put["positions"][:, part],
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits.double()
        drawn = logits.gather(-1, put["told"][:, part, None])[..., 0] - logits.logsumexp(-1)
        total += torch.where(put["real"][:, part], drawn, 0.0).sum(-1)
    return total


def _taken(pool: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
    """Keys or values (rows, heads, columns, size) at places (rows, columns) of a pool."""
    taken = pool.index_select(0, past.flatten()).view(*past.shape, *pool.shape[1:])
    return taken.transpose(1, 2)


def _alike(
    known: Sequence[tuple[ScoredRow, list[int]]],
) -> Iterator[list[tuple[ScoredRow, list[int]]]]:
    """Rows with texts and prompts of about one length, few enough for one pass."""
    from pipelines.engines.prefix_cache import PREFILL, SEEN

    batch: list[tuple[ScoredRow, list[int]]] = []
    longest = before = 0
    for row, path in sorted(known, key=lambda one: (-len(one[0].text), -len(one[1]))):
        length, count = len(row.text), len(batch) + 1
        full = count * longest > PREFILL or count * (longest + max(before, len(path))) > SEEN
        if batch and (full or 2 * length < longest):
            yield batch
            batch = []
        if not batch:
            longest, before = length, 0
        batch.append((row, path))
        before = max(before, len(path))
    if batch:
        yield batch
