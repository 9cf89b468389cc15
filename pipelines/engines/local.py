"""The embedded engine: a transformers model in this process, decoded by `decode.Decoder`."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from pipelines.config import Config
from pipelines.engines.base import Identity, Reply, Request, Tokens, request_seed
from pipelines.engines.chat_template import ChatTemplate, load_chat_template
from pipelines.engines.folder import folder_digest, model_folder
from pipelines.engines.spelling import Speller, model_speller
from pipelines.memory import give_back_large_blocks
from schemas.errors import BadReply, EngineError, MissingExtra

if TYPE_CHECKING:
    import torch

    from pipelines.engines.decode import Decoder, Row, Written

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
    tokens count. An answer ends at the model's context at the latest (`length`).

    The model is loaded when the engine is first entered and kept. It runs in a thread of its own
    for as long as anyone has the engine entered, from several event loops too.
    """

    def __init__(self, config: LocalConfig) -> None:
        self.config = config
        self._entering = threading.Lock()
        self._users = 0
        self._model: _Model | None = None
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
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
        `bad_request` where the chat template refuses the messages. Raises EngineError.
        """
        if request.schema is not None:
            raise EngineError(
                "the local engine cannot hold a reply to a JSON schema; "
                "use an `openai` or `vllm` engine for this stage"
            )
        if "" in request.sampling.stop:
            raise EngineError("a stop string is empty; leave it out of `stop`")
        prompt = self._template.render(request.messages)
        if not request.prefix_ids:
            prompt += request.prefix
        job = _Job(request, prompt, request_seed(self.identity.digest, request))
        with self._changed:
            if self._serving is None or self._serving.done() or self._closing:
                raise EngineError("the local engine is not running; use it inside `async with`")
            self._waiting.append(job)
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
                    self._model = _Model(self.config, self._folder)
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

    def _serve(self, model: _Model) -> None:
        """Body of the engine's thread: it ends when the engine is closed or the model fails."""
        running: set[_Job] = set()
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
                left = [*running, *self._waiting]
                self._waiting.clear()
            for job in left:
                job.fail(failure)

    def _run(self, model: _Model, running: set[_Job]) -> None:
        import torch

        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        ready: list[Row] = []
        waited = 0
        with torch.inference_mode():
            decoder = model.decoder(self.config)
            while True:
                with self._changed:
                    while not (self._closing or self._waiting or ready or running):
                        self._changed.wait()
                    if self._closing:
                        return
                    room = self.config.batch - decoder.live - len(ready)
                    taken = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
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


class _Job:
    """A request, the text of its prompt before `prefix_ids`, and the caller who waits for the reply."""

    def __init__(self, request: Request, prompt: str, seed: int) -> None:
        self.request = request
        self.prompt = prompt
        self.seed = seed
        self.future: Future[Reply] = Future()

    def answer(self, reply: Reply) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(reply)

    def fail(self, error: Exception) -> None:
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def dropped(self, running: set[_Job]) -> bool:
        """Whether the caller has gone away."""
        if not self.future.cancelled():
            return False
        running.discard(self)
        return True


class _Model:
    """Weights, tokenizer and what follows from them; used by one thread at a time."""

    def __init__(self, config: LocalConfig, folder: Path) -> None:
        try:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise MissingExtra(error.name or "torch", "local") from error
        give_back_large_blocks()
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise EngineError("device is `cuda` and there is no usable CUDA device; use `cpu`")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, config.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise EngineError(f"cannot load the model at {folder}: {line}") from error
        text_config = model.config.get_text_config(decoder=True)
        kinds = set(getattr(text_config, "layer_types", None) or ["full_attention"])
        if not kinds <= {"full_attention", "sliding_attention"}:
            raise EngineError(
                f"the local engine cannot decode layers of kind {', '.join(sorted(kinds))}; "
                "serve this model with vLLM and use an `openai` or `vllm` engine"
            )
        if config.dtype == "float64":
            _exact_norms(model)
        self.model = model.to(device).eval()
        made_for = getattr(text_config, "max_position_embeddings", None)
        contexts = [n for n in (config.max_context, made_for) if n is not None]
        if not contexts:
            raise EngineError(f"the model at {folder} states no context length; set `max_context`")
        self.context = min(contexts)
        ends = self.model.generation_config.eos_token_id
        self.eos = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id}
        self.eos.discard(None)
        self._tokens = lru_cache(maxsize=1024)(self._tokenise)
        self._piece = lru_cache(maxsize=65536)(lambda token: self._decode([token]))

    def decoder(self, config: LocalConfig) -> Decoder:
        from pipelines.engines.decode import Decoder

        size = config.cache_mib * 2**20
        return Decoder(self.model, config.batch, sorted(self.eos), self._stops, size)

    def row(self, job: _Job) -> Row:
        """Raises BadReply `too_long`."""
        from pipelines.engines.decode import Row

        prompt = self._tokens(job.prompt) + job.request.prefix_ids
        room = self.context - len(prompt)
        if room < 1:
            raise BadReply(
                "too_long", f"prompt of {len(prompt)} tokens; the context has {self.context}"
            )
        limit = min(room, job.request.sampling.max_tokens)
        return Row(prompt, job.request.sampling, job.seed, limit, job)

    def reply(self, job: _Job, written: Written) -> Reply:
        """Raises EngineError where the arithmetic has broken down."""
        if math.isnan(written.logprob):
            raise EngineError("the model gives NaN; use another dtype")
        text = self._text(written.row, written.tokens)
        cuts = [at for stop in job.request.sampling.stop if (at := text.find(stop)) >= 0]
        return Reply(
            text=text[: min(cuts)] if cuts else text,
            finish_reason="stop" if written.stopped else "length",
            prompt_tokens=len(written.row.prompt),
            completion_tokens=len(written.tokens),
            logprob=round(written.logprob, 6) + 0.0,
        )

    def _tokenise(self, text: str) -> tuple[int, ...]:
        ids = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise BadReply("bad_request", "the prompt has no tokens")
        return ids

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _text(self, row: Row, tokens: Sequence[int]) -> str:
        """Text of the tokens as it follows the prompt.

        Decoded after the prompt's last tokens, since some tokenizers drop a space that text begins
        with.
        """
        tail = row.prompt[-8:]
        before, whole = self._decode(tail), self._decode([*tail, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self._decode(tokens)

    def _stops(self, row: Row, tokens: Sequence[int]) -> bool:
        """Whether the newest token completes a stop string."""
        last = self._piece(int(tokens[-1]))
        stops = row.sampling.stop
        # Cheap first look; a lone token may decode to half a character or lose its space.
        if "\ufffd" not in last and not any(s[-1] == " " or s[-1] in last for s in stops):
            return False
        longest = max(len(s.encode()) for s in stops)
        near = self._decode(tokens[-longest - 4 :])
        return any(s in near for s in stops) and any(s in self._text(row, tokens) for s in stops)


def _exact_norms(model: torch.nn.Module) -> None:
    """Have RMS norms computed in float64.

    transformers' norms round to float32 inside, where a last bit that another batch shape gave
    another value now and then becomes a difference of 1e-8. Norms that torch's own does not equal
    (some scale by 1 + weight) are left alone.
    """
    import torch

    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            weight, eps = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
            if not type(norm).__name__.endswith("RMSNorm") or weight is None or eps is None:
                continue
            exact = torch.nn.RMSNorm(weight.shape, eps=eps, dtype=weight.dtype)
            exact.weight = weight
            probe = torch.linspace(-2, 3, weight.numel(), dtype=weight.dtype)
            with torch.inference_mode():
                same = torch.allclose(exact(probe), norm(probe), rtol=1e-4, atol=1e-6)
            if same:
                setattr(parent, name, exact)
