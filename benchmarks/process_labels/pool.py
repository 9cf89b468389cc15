"""Rollouts of the bundled policy: written many at a time, kept on disk."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import REPO
from pipelines.engines.base import (
    Identity,
    Reply,
    Request,
    Tokens,
    request_key,
    request_seed,
)
from pipelines.engines.local import LocalConfig, LocalEngine
from pipelines.grading import grade
from pipelines.process.search import Drawn, Prefix, Question
from pipelines.sampling import SamplingConfig
from schemas.record import digest
from schemas.records import Prompt

POLICY = REPO / "data" / "policy"
SAMPLING = SamplingConfig(max_tokens=96)
"""The bundled plan's."""
SEED = 3001
"""Seed of the rollouts."""
AT_ONCE = 4096
"""Rollouts that are written together, and a 128th of it as many prefixes: memory."""

Wanted = tuple[Question, Prefix, int]


def policy() -> LocalEngine:
    """The bundled policy in float32: what it writes is kept, so it need not be written again."""
    return LocalEngine(LocalConfig(model=str(POLICY), dtype="float32", batch=256))


def text(prompt: Prompt) -> str:
    """The problem's text."""
    return prompt.messages[-1].content


class Wrote(NamedTuple):
    """A reply's text, its tokens with the end token, and whether it ended by itself."""

    text: str
    tokens: int
    ended: bool


class Sampler:
    """What the `local` engine replies, at a fraction of the work.

    Replies draw from the uniforms that the engine would give them, so they are its own but for
    rounding. Replies to one prompt that have the same tokens so far are one row of the batch: a
    thousand rollouts of a small policy are a few dozen texts.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name = self.engine.config.model
        dtype = getattr(torch, self.engine.config.dtype)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, local_files_only=True)
        return model.eval(), AutoTokenizer.from_pretrained(name, local_files_only=True)

    def write(self, requests: Sequence[Request]) -> Iterator[tuple[int, Wrote]]:
        """Replies and the numbers of their requests; temperature 1, no top-k, top-p or stops."""
        _, tokenizer = self._loaded
        by_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
        read = lru_cache(maxsize=4096)(
            lambda said: tuple(tokenizer(said, add_special_tokens=False)["input_ids"])
        )
        for number, request in enumerate(requests):
            before = self.engine._template.render(request.messages)
            ids = request.prefix_ids or read(request.prefix) if request.prefix else ()
            by_prompt[read(before) + tuple(ids)].append(number)
        part: dict[tuple[int, ...], list[int]] = {}
        for prompt in sorted(by_prompt, key=len):
            more = len(by_prompt[prompt])
            held = sum(map(len, part.values()))
            if part and (held + more > AT_ONCE or len(part) >= AT_ONCE // 128):
                yield from self._together(part, requests)
                part = {}
            part[prompt] = by_prompt[prompt]
        if part:
            yield from self._together(part, requests)

    def _together(
        self, part: dict[tuple[int, ...], list[int]], requests: Sequence[Request]
    ) -> Iterator[tuple[int, Wrote]]:
        import torch
        from transformers import DynamicCache

        model, tokenizer = self._loaded
        numbers = [number for own in part.values() for number in own]
        limit = max(requests[number].sampling.max_tokens for number in numbers)
        uniforms = np.stack([self._uniforms(requests[number], limit) for number in numbers])
        written = np.zeros((len(numbers), limit), np.int64)
        counts = np.zeros(len(numbers), np.int64)
        width = max(map(len, part))
        ids = torch.zeros((len(part), width), dtype=torch.int64)
        seen = torch.zeros((len(part), width), dtype=torch.int64)
        for row, prompt in enumerate(part):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            seen[row, width - len(prompt) :] = 1
        places = (seen.cumsum(1) - 1).clamp(min=0)
        live = np.arange(len(numbers))
        row_of = np.repeat(np.arange(len(part)), [len(own) for own in part.values()])
        cache = DynamicCache()
        with torch.inference_mode():
            for step in range(limit):
                logits = model(
                    input_ids=ids,
                    attention_mask=seen,
                    position_ids=places,
                    past_key_values=cache,
                    use_cache=True,
                ).logits[:, -1]
                drawn = _drawn(logits.double().softmax(-1).cumsum(-1), row_of, uniforms[live, step])
                written[live, step] = drawn
                counts[live] += 1
                on = drawn != tokenizer.eos_token_id
                live, row_of, drawn = live[on], row_of[on], drawn[on]
                if not len(live):
                    break
                vocabulary = logits.shape[1]
                rows, row_of = np.unique(row_of * vocabulary + drawn, return_inverse=True)
                parents = torch.from_numpy(rows // vocabulary)
                cache.batch_select_indices(parents)
                ids = torch.from_numpy(rows % vocabulary)[:, None]
                seen = torch.cat([seen[parents], torch.ones_like(ids)], dim=1)
                places = places[parents, -1:] + 1
        known: dict[bytes, Wrote] = {}
        ended = np.ones(len(numbers), bool)
        ended[live] = False
        for index, number in enumerate(numbers):
            own = written[index, : counts[index]]
            key = own.tobytes()
            if key not in known:
                said = tokenizer.decode(own.tolist(), skip_special_tokens=True)
                known[key] = Wrote(said, len(own), bool(ended[index]))
            yield number, known[key]

    def _uniforms(self, request: Request, limit: int) -> np.ndarray:
        seed = request_seed(self.engine.identity.digest, request)
        raw = np.random.Philox(key=seed).random_raw(limit)
        return np.asarray((raw >> np.uint64(11)) * 2.0**-53)


def _drawn(cdf: Any, row_of: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Tokens by inverse CDF; `cdf` (rows, vocabulary), the others by reply."""
    import torch

    own = cdf[torch.from_numpy(row_of)]
    total = own[:, -1:].contiguous()
    at = torch.searchsorted(own, torch.from_numpy(uniforms)[:, None] * total, right=True)
    # A uniform close to 1 may round up to the total: the last token that has any mass is meant.
    return np.asarray(torch.minimum(at, torch.searchsorted(own, total))[:, 0])


class Together:
    """The sampler as an engine: what is asked for about the same time is written together, and
    nothing twice.
    """

    PATIENCE = 0.01
    """Seconds to wait for company."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._replies: dict[tuple[bytes, int], Reply] = {}
        self._waiting: dict[tuple[bytes, int], tuple[Request, asyncio.Future[Reply]]] = {}

    @property
    def identity(self) -> Identity:
        """The local engine's."""
        return self.sampler.engine.identity

    @property
    def concurrency(self) -> int:
        """As many as are written at once."""
        return AT_ONCE

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def tokens(self, text: str) -> Tokens | None:
        """As the local engine's tokenizer cuts it."""
        return self.sampler.engine.tokens(text)

    async def complete(self, request: Request) -> Reply:
        """Answer one request."""
        key = request_key("", request), request.sample
        if key in self._replies:
            return self._replies[key]
        if key not in self._waiting:
            loop = asyncio.get_running_loop()
            if not self._waiting:
                loop.call_later(self.PATIENCE, self._write)
            self._waiting[key] = request, loop.create_future()
        return await self._waiting[key][1]

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        items = list(waiting.items())
        try:
            for index, wrote in self.sampler.write([request for _, (request, _) in items]):
                key, (_, future) = items[index]
                end: Literal["stop", "length"] = "stop" if wrote.ended else "length"
                self._replies[key] = Reply(wrote.text, end, 0, wrote.tokens)
                if not future.done():
                    future.set_result(self._replies[key])
        except Exception as error:
            # Nobody awaits this call: who waits for a reply is to hear of it.
            for _, future in waiting.values():
                if not future.done():
                    future.set_exception(error)


@dataclass
class Pool:
    """Rollouts by problem, prefix and number, kept in a folder."""

    folder: Path
    sampler: Sampler = field(default_factory=lambda: Sampler(policy()))
    drawn: dict[tuple[str, str], dict[int, Drawn]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    written: int = 0
    """Rollouts that had to be written."""
    _saved: int = 0
    _same: dict[Drawn, Drawn] = field(default_factory=dict)
    """Most rollouts say what others said: each is held once."""

    @property
    def file(self) -> Path:
        """The rollouts of this engine under this sampling."""
        engine = self.sampler.engine.identity.digest
        key = digest("pool", engine, SAMPLING.model_dump(mode="json"), SEED)
        return self.folder / f"{key[:16]}.parquet"

    def load(self) -> None:
        """Read what earlier runs have written."""
        if self.file.exists():
            columns = [column.to_pylist() for column in pq.read_table(self.file).columns]
            for problem, prefix, number, *rollout in zip(*columns, strict=True):
                self._put((problem, prefix), number, Drawn(*rollout))

    def save(self) -> None:
        """Write all of it, if there is more than before."""
        if self.written == self._saved:
            return
        rows = [
            (*key, number, *rollout)
            for key, own in self.drawn.items()
            for number, rollout in own.items()
        ]
        names = ("problem", "prefix", "number", *Drawn._fields)
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(f".{os.getpid()}")
        pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), part)
        part.replace(self.file)
        self._saved = self.written

    def supply(self, wanted: Iterable[Wanted]) -> None:
        """Write what is not there, together."""
        missing = {
            (text(question.prompt), prefix.text, number): (question, prefix, number)
            for question, prefix, number in wanted
            if number not in self.drawn.get((text(question.prompt), prefix.text), ())
        }
        if missing:
            asyncio.run(self._write(list(missing.values())))
            self.written += len(missing)

    def get(self, question: Question, prefix: Prefix, number: int) -> Drawn:
        """One rollout, written if it is not there."""
        own = self.drawn[text(question.prompt), prefix.text]
        if number not in own:
            self.supply([(question, prefix, number)])
        return own[number]

    def _put(self, key: tuple[str, str], number: int, rollout: Drawn) -> None:
        self.drawn[key][number] = self._same.setdefault(rollout, rollout)

    async def _write(self, missing: Sequence[Wanted]) -> None:
        sampling = SAMPLING.with_seed(SEED)
        requests = [
            Request(q.prompt.messages, sampling, number, prefix.text, prefix_ids=prefix.ids)
            for q, prefix, number in missing
        ]
        for index, wrote in self.sampler.write(requests):
            question, prefix, number = missing[index]
            graded = await grade(question.prompt, prefix.text + wrote.text, not wrote.ended)
            rollout = Drawn(graded.outcome, graded.answer, wrote.text, wrote.tokens)
            self._put((text(question.prompt), prefix.text), number, rollout)
