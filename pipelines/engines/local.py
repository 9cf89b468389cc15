"""The embedded engine: a transformers model in this process, decoded by `decode.Decoder`."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from pipelines.config import Config
from pipelines.engines.base import Identity, Reply, Request, Tokens, request_seed
from pipelines.engines.chat_template import ChatTemplate, load_chat_template
from pipelines.engines.folder import folder_digest, model_folder
from pipelines.engines.local_model import Job, Model
from pipelines.engines.spelling import Speller, model_speller
from schemas.errors import BadReply, EngineError

if TYPE_CHECKING:
    from pipelines.engines.decode import Decoder, Row
    from pipelines.engines.scoring import ScoredRow

PATIENCE = 16
"""Most steps of the running batch that a request waits for company before its prompt is read."""


class LocalConfig(Config):
    """Settings of the local engine."""

    kind: Literal["local"] = "local"
    """Engine kind."""
    model: str
    """Model folder (absolute path) or Hugging Face Hub id; weights as safetensors."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; none: its main branch."""
    dtype: Literal["float64", "float32", "bfloat16"] = "float64"
    """Arithmetic. float64 makes an answer independent of what else is in the batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes CUDA where there is one."""
    batch: Annotated[int, Field(ge=1)] = 128
    """Most answers written at once."""
    cache_mib: Annotated[int, Field(ge=1)] = 256
    """Memory (MiB) for what was read of prompts: one that begins like an earlier one has only the
    rest read. No answer depends on it."""
    max_context: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of prompt and answer together; none: what the model was made for."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of torch in this process; none: left as they are. Take 1 where other work keeps the
    cores busy: threads that wait for each other there made a small model many times slower."""


class LocalEngine:
    """Answers requests with a model in this process.

    A request's prompt is the model's chat template over its messages, then its `prefix`, tokenised
    in one piece without further special tokens (or the template's tokens, then its `prefix_ids`);
    the reply is what comes after. `logprob` is of
    every token written, the end token included, under the model itself (temperature 1, no top-k,
    no top-p), rounded to 6 decimals: rounding in the arithmetic moves it by about 1e-13 from batch
    to batch, and published rows are to be equal byte by byte. Text after a stop string is cut; its
    tokens count. An answer ends at the model's context at the latest (`length`). A text to be scored
    is read after the same tokens, as its own; those that wait together share passes.

    The model is loaded when the engine is first entered and kept. It runs in a thread of its own
    for as long as anyone has the engine entered, from several event loops too.
    """

    def __init__(self, config: LocalConfig) -> None:
        self.config = config
        self._entering = threading.Lock()
        self._users = 0
        self._model: Model | None = None
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._unscored: deque[Job] = deque()
        self._closing = False
        self._thread: ThreadPoolExecutor | None = None
        self._serving: Future[None] | None = None

    @cached_property
    def identity(self) -> Identity:
        """Model, content of its folder, chat template and dtype. Raises EngineError."""
        name = self.config.model
        extra: dict[str, Any] = {"dtype": self.config.dtype}
        if self.config.max_context is not None:
            extra["max_context"] = self.config.max_context
        return Identity(
            kind="local",
            model=self._folder.name if Path(name).is_dir() else name,
            revision=folder_digest(self._folder),
            template=self._template.sha256,
            endpoint="local",
            extra=extra,
        )

    @property
    def concurrency(self) -> int:
        """Two batches: one that is written and one that waits to take its places."""
        return 2 * self.config.batch

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self._close)

    async def complete(self, request: Request) -> Reply:
        """Answer one request.

        Raises BadReply: `too_long` where the prompt leaves no room in the model's context,
        `bad_request` where the chat template refuses the messages or a text to score has no tokens
        of its own. Raises EngineError.
        """
        if request.schema is not None and not request.scored:
            raise EngineError(
                "the local engine cannot hold a reply to a JSON schema; "
                "use an `openai` or `vllm` engine for this stage"
            )
        if "" in request.sampling.stop and not request.scored:
            raise EngineError("a stop string is empty; leave it out of `stop`")
        prompt = self._template.render(request.messages)
        if not request.prefix_ids:
            prompt += request.prefix
        spelled = self.tokens(request.scored) if request.scored else None
        job = Job(request, prompt, request_seed(self.identity.digest, request), spelled)
        with self._changed:
            if self._serving is None or self._serving.done() or self._closing:
                raise EngineError("the local engine is not running; use it inside `async with`")
            (self._unscored if request.scored else self._waiting).append(job)
            self._changed.notify()
        return await asyncio.wrap_future(job.future)

    def tokens(self, text: str) -> Tokens | None:
        """See `Engine`; None where the model's tokenizer is one written in Python."""
        return None if self._speller is None else self._speller.tokens(text)

    @cached_property
    def _speller(self) -> Speller | None:
        return model_speller(self._folder)

    @cached_property
    def _folder(self) -> Path:
        return model_folder(self.config.model, self.config.revision)

    @cached_property
    def _template(self) -> ChatTemplate:
        return load_chat_template(str(self._folder))

    def _open(self) -> None:
        with self._entering:
            if self._users == 0:
                self.identity.digest  # noqa: B018 - an unusable folder is told before it is loaded
                if self._model is None:
                    self._model = Model(self.config, self._folder)
                self._closing = False
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="local-engine")
                self._serving = self._thread.submit(self._serve, self._model)
            self._users += 1

    def _close(self) -> None:
        with self._entering:
            self._users -= 1
            if self._users == 0 and self._thread is not None:
                with self._changed:
                    self._closing = True
                    self._changed.notify()
                self._thread.shutdown()

    def _serve(self, model: Model) -> None:
        """Body of the engine's thread: it ends when the engine is closed or the model fails."""
        running: set[Job] = set()
        failure = EngineError("the local engine was closed while requests were waiting")
        try:
            self._run(model, running)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            line = next(iter(str(error).strip().splitlines()), "")
            hint = "; lower `batch` or `max_context`" if "out of memory" in line else ""
            failure = EngineError(f"the local model failed: {type(error).__name__}: {line}{hint}")
            failure.__cause__ = error
        except EngineError as error:
            failure = error
        finally:
            # Whatever ended the thread, nobody is left waiting for it.
            with self._changed:
                self._closing = True
                left = [*running, *self._waiting, *self._unscored]
                self._waiting.clear()
                self._unscored.clear()
            for job in left:
                job.fail(failure)

    def _run(self, model: Model, running: set[Job]) -> None:
        import torch

        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        ready: list[Row] = []
        waited = 0
        with torch.inference_mode():
            decoder = model.decoder(self.config)
            while True:
                with self._changed:
                    while not (
                        self._closing or self._waiting or self._unscored or ready or running
                    ):
                        self._changed.wait()
                    if self._closing:
                        return
                    room = self.config.batch - decoder.live - len(ready)
                    taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
                    count = min(self.config.batch, len(self._unscored))
                    unscored = [self._unscored.popleft() for _ in range(count)]
                self._score(model, decoder, unscored, running)
                for job in taken:
                    try:
                        ready.append(model.row(job))
                        running.add(job)
                    except BadReply as error:
                        job.fail(error)
                decoder.drop(lambda row: row.owner.dropped(running))
                ready = [row for row in ready if not row.owner.dropped(running)]
                # A prompt costs a pass of its own, so a few of them are read together.
                if ready and (len(ready) >= decoder.live // 8 or waited >= PATIENCE):
                    decoder.admit(ready)
                    ready, waited = [], 0
                waited += 1
                for written in decoder.step():
                    job = written.row.owner
                    job.answer(model.reply(job, written))
                    running.discard(job)

    def _score(self, model: Model, decoder: Decoder, jobs: list[Job], running: set[Job]) -> None:
        running.update(jobs)  # whatever happens to the thread, they are told
        rows: list[ScoredRow] = []
        for job in jobs:
            if job.dropped(running):
                continue
            try:
                rows.append(model.scored_row(job))
            except BadReply as error:
                job.fail(error)
                running.discard(job)
        for row, reply in model.scores(decoder, rows):
            row.owner.answer(reply)
            running.discard(row.owner)
