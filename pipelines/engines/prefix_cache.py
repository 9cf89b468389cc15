"""Keys and values of tokens that were read, shared by all prompts that begin with them.

A tree of tokens: a node is the place of a token's keys and values in one pool, found by the place
of the token before it and the token itself. A prompt has only what follows its longest known start
read. The pool's size is fixed; the nodes that were used longest ago are given up first, a node
never before those that hang from it (as in the radix tree of SGLang, Zheng et al. 2024,
arXiv:2312.07104).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

PREFILL = 2048
"""Most tokens, padding included, that are read in one pass."""
SEEN = 16_384
"""Most tokens, padding included, that a pass may look back on."""

Tokens = tuple[int, ...]


class PlacedLayer(CacheLayerMixin):
    """A cache layer whose memory is somebody else's: what it needs is laid out beforehand."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Raises: there is nothing left to lay out in a pass."""
        raise NotImplementedError("laid out before the first pass")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a pass sees, its own tokens included, and the first one's number."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1


class _PoolLayer(PlacedLayer):
    """One layer of the pool as a pass sees it.

    `past` (rows, columns): places of the tokens before the new ones. `new`: places of the new
    tokens; `real`: where they are among the pass's (rows * length) tokens.
    """

    def __init__(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        past: torch.Tensor,
        new: torch.Tensor,
        real: torch.Tensor,
    ) -> None:
        super().__init__()
        self.keys: torch.Tensor = keys
        self.values: torch.Tensor = values
        self.past, self.new, self.real = past, new, real

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._extended(self.keys, key_states), self._extended(self.values, value_states)

    def get_seq_length(self) -> int:
        return self.past.shape[1]

    def _extended(self, pool: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """`pool`: (places, heads, size), `read`: (rows, heads, length, size)."""
        by_token = read.transpose(1, 2)
        pool.index_copy_(0, self.new, by_token.flatten(0, 1).index_select(0, self.real))
        past = pool.index_select(0, self.past.flatten()).view(*self.past.shape, *pool.shape[1:])
        return torch.cat([past, by_token], dim=1).transpose(1, 2)


class TokenTree:
    """Which place holds which token after which others; `capacity` places, numbered from 1."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._places: OrderedDict[tuple[int, int], int] = OrderedDict()  # least recently used first

    def find(self, tokens: Tokens) -> list[int]:
        """Places of the longest known start of `tokens`."""
        path: list[int] = []
        place = 0
        for token in tokens:
            known = self._places.get((place, token))
            if known is None:
                break
            path.append(place := known)
        return path

    def touch(self, tokens: Tokens, path: Sequence[int]) -> None:
        """Mark a path as used: its last node first, so that it is also given up first."""
        for node in reversed(list(zip((0, *path), tokens, strict=False))[: len(path)]):
            self._places.move_to_end(node)

    def extend(self, tokens: Tokens, path: list[int]) -> None:
        """Lengthen a known, touched path to all of `tokens`, in the places used longest ago."""
        for token in tokens[len(path) :]:
            place = len(self._places) + 1
            if place > self.capacity:
                _, place = self._places.popitem(last=False)
            self._places[path[-1] if path else 0, token] = place
            path.append(place)
        self.touch(tokens, path)


class PrefixCache:
    """Reads prompts and keeps what was read, in at most `size` bytes; one prompt always fits.

    Under `inference_mode`. `keys` and `values` have a tensor (places, heads, size) a layer; place 0
    is what padding looks back on.
    """

    def __init__(self, model: Any, size: int) -> None:
        self.model = model
        self.device = model.device
        probe = Cache(layer_class_to_replicate=DynamicLayer)
        token = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
        model(input_ids=token, past_key_values=probe, use_cache=True)
        self.keys = [layer.keys[0].transpose(0, 1) for layer in probe.layers]
        self.values = [layer.values[0].transpose(0, 1) for layer in probe.layers]
        self._lay_out(max(1, size // sum(one.nbytes for one in (*self.keys, *self.values))))

    def read(self, prompts: Sequence[Tokens]) -> Iterator[dict[Tokens, list[int]]]:
        """Places of the tokens of distinct prompts, some prompts at a time.

        They hold until the next are asked for.
        """
        # Longest first: of prompts that begin alike, the others then find most of theirs known.
        waiting = sorted(prompts, key=len, reverse=True)
        while waiting:
            if len(waiting[0]) > self.tree.capacity:
                self._lay_out(len(waiting[0]))
            taken = self._take(waiting)
            unread = [(prompt, len(path)) for prompt, path in taken.items()]
            unread = [(prompt, known) for prompt, known in unread if known < len(prompt)]
            for prompt, _ in unread:
                self.tree.extend(prompt, taken[prompt])
            for group in _alike(unread):
                self._read([(taken[prompt], prompt, known) for prompt, known in group])
            yield taken
            waiting = [prompt for prompt in waiting if prompt not in taken]

    def _lay_out(self, capacity: int) -> None:
        self.tree = TokenTree(capacity)
        for layers in (self.keys, self.values):
            for i, old in enumerate(layers):
                layers[i] = old.new_empty((capacity + 1, *old.shape[1:]))
                layers[i][0] = 0  # masked, but it must be finite

    def _take(self, waiting: Sequence[Tokens]) -> dict[Tokens, list[int]]:
        """Prompts that fit together, with what is known of each; no two miss the same token."""
        taken: dict[Tokens, list[int]] = {}
        missed: set[tuple[int, int]] = set()
        size = 0
        for prompt in waiting:
            if size + len(prompt) > self.tree.capacity:
                break
            path = self.tree.find(prompt)
            if len(path) < len(prompt):
                miss = (path[-1] if path else 0, prompt[len(path)])
                if miss in missed:
                    continue
                missed.add(miss)
            self.tree.touch(prompt, path)
            taken[prompt] = path
            size += len(prompt)
        return taken

    def _read(self, group: Sequence[tuple[list[int], Tokens, int]]) -> None:
        """Read the tokens of prompts after the `known` ones.

        Known tokens are padded on the left, new ones on the right: every token, padding too, sees
        at least itself, and none that is kept sees padding.
        """
        before = max(known for _, _, known in group)
        length = max(len(prompt) - known for _, prompt, known in group)
        past = np.zeros((len(group), before), np.int64)
        ids = np.zeros((len(group), length), np.int64)
        new: list[int] = []
        real: list[int] = []
        for i, (path, prompt, known) in enumerate(group):
            past[i, before - known :] = path[:known]
            ids[i, : len(prompt) - known] = prompt[known:]
            new += path[known:]
            real += range(i * length, i * length + len(prompt) - known)
        start = np.array([known for _, _, known in group])[:, None]
        seen = np.arange(before + length) >= before - start
        places = [self._put(one) for one in (past, np.array(new), np.array(real))]
        pools = zip(self.keys, self.values, strict=True)
        layers = [_PoolLayer(keys, values, *places) for keys, values in pools]
        self.model(
            input_ids=self._put(ids),
            attention_mask=self._put(seen.astype(np.int64)),
            position_ids=self._put(start + np.arange(length)),
            past_key_values=Cache(layers=layers),
            use_cache=True,
            logits_to_keep=1,
        )

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


def _alike(unread: Sequence[tuple[Tokens, int]]) -> Iterator[list[tuple[Tokens, int]]]:
    """Groups of prompts with about as much to read, each small enough for one pass."""
    group: list[tuple[Tokens, int]] = []
    longest = before = 0
    for prompt, known in sorted(unread, key=lambda one: one[1] - len(one[0])):
        length, count = len(prompt) - known, len(group) + 1
        full = count * longest > PREFILL or count * (longest + max(before, known)) > SEEN
        if group and (full or 2 * length < longest):
            yield group
            group = []
        if not group:
            longest, before = length, 0
        group.append((prompt, known))
        before = max(before, known)
    if group:
        yield group
