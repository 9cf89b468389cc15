"""Decoding with a KV cache: rows join and leave one running batch, each with its own randomness.

All rows of the batch write the same column of the cache at the same time, so a row's cache ends
where the batch stands and starts wherever its length says (left padding); positions are counted
from the row's own start. A row that joins has all of its prompt but the last token read, as far as
the prefix cache does not know it, and copied in front of that column; the last token is the first
that it reads with the others. Rows that end are skipped and cut out when they are many.

A row draws its uniforms from its own Philox stream, by inverse CDF, so that what it draws does not
depend on its neighbours. What is left of them is rounding: the same row in a batch of another shape
gives logits that differ in the last bits. In float64 that is about 1e-14, so a draw that lands on
the other side of a boundary takes some 10^13 tokens. In float32, bfloat16 or on a GPU, and with the
few models for which transformers has only eager attention (it rounds to float32), it is not rare:
there only the journal makes a resumed run equal to an unbroken one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from pipelines.engines.base import Sampling
from pipelines.engines.prefix_cache import PlacedLayer, PrefixCache

BLOCK = 64
"""Uniforms drawn from a row's stream at a time."""
SLACK = 32
"""Columns kept free when the cache is laid out anew."""
DRAWN = 2**24
"""Most logits (rows times vocabulary) that are drawn from at once: with their copies in float64 some
1.5 GiB. A large batch of a large vocabulary would not fit a GPU beside the model."""

_STATE = np.dtype(
    [
        ("count", "i8"),  # tokens written
        ("limit", "i8"),
        ("logprob", "f8"),
        ("start", "i8"),  # first column of the row in the cache
        ("temperature", "f8"),
        ("top_k", "i8"),
        ("top_p", "f8"),
        ("watched", "?"),  # it has stop strings
        ("uniforms", "f8", (BLOCK,)),
    ]
)


@dataclass(eq=False, slots=True)
class Row:
    """A request under way: `limit` is the most tokens to write, `owner` is the caller's."""

    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int
    limit: int
    owner: Any


@dataclass(frozen=True, slots=True)
class Written:
    """What a row wrote; `tokens` include the end token, `stopped` is false where it was cut off."""

    row: Row
    tokens: list[int]
    logprob: float
    stopped: bool


def restrict(probs: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zero all but the `top_k` likeliest tokens, then all but the smallest set that holds `top_p`.

    `probs`: (rows, vocabulary), `top_k` and `top_p`: (rows,); 0 and 1 switch them off. The result
    is not normalised. Nucleus sampling: Holtzman et al. 2020, arXiv:1904.09751.
    """
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(probs.shape[-1], device=probs.device)
    size = torch.where(top_k > 0, top_k, probs.shape[-1])
    ordered = torch.where(rank < size[:, None], ordered, 0.0)
    before = ordered.cumsum(-1) - ordered
    enough = torch.where(top_p < 1, top_p, torch.inf)[:, None] * ordered.sum(-1, keepdim=True)
    ordered = torch.where((before < enough) | (rank == 0), ordered, 0.0)
    return torch.zeros_like(probs).scatter(-1, order, ordered)


def draw(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    uniforms: torch.Tensor,
    *,
    filtered: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens by inverse CDF, and their log-probabilities under the model itself.

    `logits`: (rows, vocabulary); all else: (rows,), `uniforms` in [0, 1). Temperature 0 takes the
    likeliest token. The log-probability (nats) is that of temperature 1 without top-k and top-p.
    `filtered` says whether any row has a top-k or top-p.
    """
    logits = logits.double()
    logprobs = logits.log_softmax(-1)
    greedy = temperature == 0
    probs = (logits / torch.where(greedy, 1.0, temperature)[:, None]).softmax(-1)
    if filtered:
        probs = restrict(probs, top_k, top_p)
    cdf = probs.cumsum(-1)
    total = cdf[:, -1:].contiguous()
    drawn = torch.searchsorted(cdf, uniforms[:, None] * total, right=True)
    # A uniform close to 1 may round up to the total: the last token that has any mass is meant.
    drawn = torch.minimum(drawn, torch.searchsorted(cdf, total))[:, 0]
    drawn = drawn.clamp(max=logits.shape[-1] - 1)  # NaN logits: their log-probability tells
    tokens = torch.where(greedy, logits.argmax(-1), drawn)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


class _Window:
    """Columns [first, end) of the cache are in use."""

    def __init__(self) -> None:
        self.first = 0
        self.end = 0


class _Layer(PlacedLayer):
    """Keys and values (rows, columns, heads, size) with room to write in place."""

    def __init__(self, window: _Window, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.window = window
        self.keys: torch.Tensor = keys
        self.values: torch.Tensor = values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        first, end = self.window.first, self.window.end
        self.keys[:, end] = key_states[:, :, 0]
        self.values[:, end] = value_states[:, :, 0]
        keys, values = self.keys[:, first : end + 1], self.values[:, first : end + 1]
        return keys.transpose(1, 2), values.transpose(1, 2)

    def get_seq_length(self) -> int:
        return self.window.end - self.window.first


def _no_rows(pool: torch.Tensor) -> torch.Tensor:
    """Keys or values (rows, columns, heads, size) of no row, as a pool (places, heads, size) is."""
    return pool.new_empty((0, 1, *pool.shape[1:]))


class Decoder:
    """One running batch of at most `capacity` rows; not thread-safe, under `inference_mode`.

    `eos` are the tokens that end an answer; `stops(row, tokens)` says whether what a row with stop
    strings wrote so far holds one of them.
    """

    def __init__(
        self,
        model: Any,
        capacity: int,
        eos: Sequence[int],
        stops: Callable[[Row, Sequence[int]], bool],
        cache_size: int,
    ) -> None:
        self.model = model
        self.capacity = capacity
        self.device = model.device
        self.eos = np.array(sorted(eos), dtype=np.int64)
        self.stops = stops
        self.window = _Window()
        self.prefixes = PrefixCache(model, cache_size)
        pools = zip(self.prefixes.keys, self.prefixes.values, strict=True)
        self.layers = [_Layer(self.window, *map(_no_rows, both)) for both in pools]
        self.columns = 0
        self.spare: torch.Tensor | None = None
        self.rows: list[Row | None] = []
        self.streams: list[np.random.Philox] = []
        self.state: np.ndarray[Any, Any] = np.zeros(0, _STATE)
        self.written: np.ndarray[Any, Any] = np.zeros((0, BLOCK), np.int64)
        self.last = torch.zeros(0, dtype=torch.int64, device=self.device)
        self._settings: dict[str, torch.Tensor] | None = None

    @property
    def live(self) -> int:
        """Rows under way."""
        return sum(row is not None for row in self.rows)

    def admit(self, rows: Sequence[Row]) -> None:
        """Have new rows join: their prompts are read but for the last token, the next step's."""
        groups: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(row.prompt[:-1], []).append(row)
        free = self._room(len(rows), max(map(len, groups)))
        for places in self.prefixes.read(list(groups)):
            joining = [(row, path) for prefix, path in places.items() for row in groups[prefix]]
            self._join(joining, [free.pop() for _ in joining])

    def step(self) -> list[Written]:
        """Write one token of every row; rows that end come back and leave the batch."""
        live = self.live
        if not live:
            return []
        if live <= 0.7 * len(self.rows) or self.window.end == self.columns:
            self._lay_out(0, 0)
        settings = self._prepared()
        start, window = settings["start"], self.window
        window.first = int(self.state["start"][self._live()].min())
        seen = torch.arange(window.first, window.end + 1, device=self.device) >= start[:, None]
        output = self.model(
            input_ids=self.last[:, None],
            attention_mask=seen.long(),
            position_ids=(window.end - start)[:, None],
            past_key_values=Cache(layers=list(self.layers)),
            use_cache=True,
        )
        window.end += 1
        return self._write(output.logits[:, -1])

    def drop(self, unwanted: Callable[[Row], bool]) -> None:
        """Let go of rows that nobody waits for."""
        for slot, row in enumerate(self.rows):
            if row is not None and unwanted(row):
                self.rows[slot] = None

    def _live(self) -> list[int]:
        return [slot for slot, row in enumerate(self.rows) if row is not None]

    def _join(self, rows: Sequence[tuple[Row, list[int]]], slots: Sequence[int]) -> None:
        """Copy what was read for these rows into their slots, in front of the end."""
        end = self.window.end
        source: list[int] = []
        target: list[int] = []
        for slot, (row, path) in zip(slots, rows, strict=True):
            source += path
            at = slot * self.columns + end
            target += range(at - len(path), at)
            state = self.state[slot]
            state["count"], state["limit"], state["logprob"] = 0, row.limit, 0.0
            state["start"] = end - len(path)
            state["temperature"] = row.sampling.temperature
            state["top_k"], state["top_p"] = row.sampling.top_k, row.sampling.top_p
            state["watched"] = bool(row.sampling.stop)
            self.rows[slot] = row
            self.streams[slot] = np.random.Philox(key=row.seed)
        last = [row.prompt[-1] for row, _ in rows]
        self.last[torch.tensor(slots)] = torch.tensor(last, device=self.device)
        taken = torch.tensor(source, dtype=torch.int64, device=self.device)
        into = torch.tensor(target, dtype=torch.int64, device=self.device)
        read = zip(self.prefixes.keys, self.prefixes.values, strict=True)
        for layer, (keys, values) in zip(self.layers, read, strict=True):
            layer.keys.flatten(0, 1).index_copy_(0, into, keys.index_select(0, taken))
            layer.values.flatten(0, 1).index_copy_(0, into, values.index_select(0, taken))
        self._settings = None

    def _room(self, rows: int, width: int) -> list[int]:
        """Slots for new rows whose prompts take `width` columns before the end."""
        free = [slot for slot, row in enumerate(self.rows) if row is None]
        if len(free) < rows or self.window.end < width:
            self._lay_out(rows, width)
            free = [slot for slot, row in enumerate(self.rows) if row is None]
        return free[:rows]

    def _lay_out(self, new: int, width: int) -> None:
        """Move the live rows to the front of a cache with `new` free rows and free columns."""
        keep = self._live()
        window = self.window
        first = int(self.state["start"][keep].min()) if keep else window.end
        span = window.end - first
        end = max(span, width)
        self.columns = end + SLACK
        at = torch.tensor(keep, dtype=torch.int64, device=self.device)
        for layer in self.layers:
            layer.keys = self._moved(layer.keys, at, new, first, end - span)
            layer.values = self._moved(layer.values, at, new, first, end - span)
        self.last = torch.cat([self.last[at], self.last.new_zeros(new)])
        self.state = np.concatenate([self.state[keep], np.zeros(new, _STATE)])
        self.state["start"] += end - window.end
        self.state["start"][len(keep) :] = end
        self.written = np.concatenate(
            [self.written[keep], np.zeros((new, self.written.shape[1]), np.int64)]
        )
        self.streams = [self.streams[slot] for slot in keep] + [np.random.Philox(key=0)] * new
        self.rows = [self.rows[slot] for slot in keep] + [None] * new
        window.first, window.end = end - span, end
        self._settings = None

    def _moved(
        self, old: torch.Tensor, rows: torch.Tensor, new: int, first: int, to: int
    ) -> torch.Tensor:
        shape = (len(rows) + new, self.columns, *old.shape[2:])
        size = math.prod(shape)
        # The buffer moved from last is used again: fresh memory costs more than the copy.
        if self.spare is None or self.spare.numel() < size or self.spare.dtype != old.dtype:
            self.spare = old.new_empty(size)
        moved = self.spare[:size].view(shape)
        until = to + self.window.end - first
        # What is masked must be finite too; columns to come are written before they are read.
        moved[: len(rows), :to] = 0
        moved[len(rows) :, :until] = 0
        live = moved[: len(rows), to:until]
        torch.index_select(old[:, first : self.window.end], 0, rows, out=live)
        # All of it, not what the last layout used: else buffers shrink, are allocated again and again,
        # and the heap of the C library is left full of holes.
        whole = old.untyped_storage().nbytes() // old.element_size()
        self.spare = old.as_strided((whole,), (1,), 0)
        return moved

    def _prepared(self) -> dict[str, torch.Tensor]:
        """Per-row settings on the device; they change only as rows come and move."""
        if self._settings is None:
            self._settings = {
                name: torch.from_numpy(self.state[name].copy()).to(self.device)
                for name in ("start", "temperature", "top_k", "top_p")
            }
        return self._settings

    def _write(self, logits: torch.Tensor) -> list[Written]:
        """Draw the next token of every row from the logits (rows, vocabulary)."""
        state = self.state
        count = state["count"]
        for slot in np.flatnonzero(count % BLOCK == 0).tolist():
            raw = self.streams[slot].random_raw(BLOCK)  # the stream that numpy keeps stable
            state["uniforms"][slot] = (raw >> np.uint64(11)) * 2.0**-53
        every = np.arange(len(count))
        uniforms = torch.from_numpy(state["uniforms"][every, count % BLOCK]).to(self.device)
        settings = self._prepared()
        filtered = bool(((state["top_k"] > 0) | (state["top_p"] < 1)).any())
        each = [logits, *(settings[name] for name in ("temperature", "top_k", "top_p")), uniforms]
        rows = max(1, DRAWN // logits.shape[1])
        parts = zip(*(torch.split(one, rows) for one in each), strict=True)
        pieces = [draw(*part, filtered=filtered) for part in parts]
        self.last, logprobs = (torch.cat(column) for column in zip(*pieces, strict=True))
        drawn = self.last.cpu().numpy()
        if count.max() == self.written.shape[1]:
            self.written = np.concatenate([self.written, np.zeros_like(self.written)], axis=1)
        self.written[every, count] = drawn
        count += 1
        state["logprob"] += logprobs.cpu().numpy()
        stopped = np.isin(drawn, self.eos)
        ended = stopped | (count >= state["limit"])
        done = []
        for slot in np.flatnonzero(ended | state["watched"]).tolist():
            row = self.rows[slot]
            wrote = self.written[slot, : count[slot]]
            if row is not None:
                stop = bool(stopped[slot]) or (
                    bool(row.sampling.stop) and self.stops(row, wrote.tolist())
                )
                if not stop and not ended[slot]:
                    continue
                done.append(Written(row, wrote.tolist(), float(state["logprob"][slot]), stop))
                self.rows[slot] = None
            count[slot] = 0
        return done
