"""vLLM in this process, for a machine with a GPU; for a vLLM server use the `openai` engine."""

from __future__ import annotations

import itertools
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from pipelines.config import Config
from pipelines.engines.base import Identity, Reply, Request, Tokens, request_seed
from pipelines.engines.chat_template import ChatTemplate, load_chat_template
from pipelines.engines.folder import folder_digest, model_folder
from pipelines.engines.scoring import scored_ids
from pipelines.engines.spelling import Speller, model_speller
from schemas.errors import BadReply, EngineError, MissingExtra


class VLLMConfig(Config):
    """Settings of the vLLM engine."""

    kind: Literal["vllm"] = "vllm"
    """Engine kind."""
    model: str
    """Model folder (absolute path) or Hugging Face Hub id; weights as safetensors."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; none: its main branch."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Arithmetic; `auto` is the one that the model was saved in."""
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of prompt and answer together; none: what the model was made for."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the GPU's memory that vLLM may take."""
    max_num_seqs: Annotated[int, Field(ge=1)] = 256
    """Most answers written at once."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    """GPUs that one copy of the model is spread over."""


class VLLMEngine:
    """Answers requests with vLLM's asynchronous engine (`vllm.v1.engine.async_llm.AsyncLLM`).

    Prompts are made as in the local engine and given to vLLM as token ids. `logprob` is of every
    token written, under the model itself (`raw_logprobs`, vLLM's default); under a JSON schema,
    under the model held to that schema. A text to be scored is given as tokens after the prompt's, and
    there has to be room for one more. Every request has a seed of its own, but vLLM's arithmetic
    depends on the batch: the journal is what makes a resumed run equal to an unbroken one.
    """

    def __init__(self, config: VLLMConfig) -> None:
        self.config = config
        self._llm: Any = None
        self._tokenizer: Any = None
        self._names = itertools.count()

    @cached_property
    def identity(self) -> Identity:
        """Model, content of its folder, chat template, dtype and context. Raises EngineError."""
        name = self.config.model
        return Identity(
            kind="vllm",
            model=self._folder.name if Path(name).is_dir() else name,
            revision=folder_digest(self._folder),
            template=self._template.sha256,
            endpoint="local",
            extra={"dtype": self.config.dtype, "max_model_len": self.config.max_model_len},
        )

    @property
    def concurrency(self) -> int:
        """Two batches: one that is written and one that waits to take its places."""
        return 2 * self.config.max_num_seqs

    async def __aenter__(self) -> Self:
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise MissingExtra("vllm", "vllm") from error
        if self._llm is not None:
            raise EngineError("a vLLM engine can be entered by one stage at a time")
        self.identity.digest  # noqa: B018 - an unusable folder is told before it is loaded
        arguments = AsyncEngineArgs(
            model=str(self._folder),
            dtype=self.config.dtype,
            max_model_len=self.config.max_model_len,
            gpu_memory_utilization=self.config.gpu_memory_utilization,
            max_num_seqs=self.config.max_num_seqs,
            tensor_parallel_size=self.config.tensor_parallel_size,
            enable_prefix_caching=True,
            load_format="safetensors",
            trust_remote_code=False,
            disable_log_stats=True,
        )
        try:
            self._llm = AsyncLLM.from_engine_args(arguments)
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"vLLM cannot load {self._folder}: {_line(error)}") from error
        self._tokenizer = self._llm.get_tokenizer()
        return self

    async def __aexit__(self, *exc: object) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.shutdown()

    async def complete(self, request: Request) -> Reply:
        """Answer one request.

        Raises BadReply: `too_long` where the prompt leaves no room in the model's context,
        `bad_request` where the chat template refuses the messages or a text to score has no tokens
        of its own. Raises EngineError.
        """
        if self._llm is None:
            raise EngineError("the vLLM engine is not running; use it inside `async with`")
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        before = self._template.render(request.messages)
        text = before if request.prefix_ids else before + request.prefix
        prompt = [*self._encode(text), *request.prefix_ids]
        scored: tuple[int, ...] = ()
        if request.scored:
            spelled = self.tokens(request.scored)
            scored = scored_ids(spelled, self._encode, before + request.prefix, request.scored)
        start = len(prompt)
        prompt += scored
        context = int(self._llm.model_config.max_model_len)
        if len(prompt) >= context:
            raise BadReply("too_long", f"prompt of {len(prompt)} tokens; the context has {context}")
        # With its type: what vLLM would have to look at first (a text, tokens alone) it deprecates.
        given = {"type": "token", "prompt_token_ids": prompt}
        final = None
        try:
            params = sampling_params(request, self.identity.digest, context - len(prompt))
            async for output in self._llm.generate(
                given, params, request_id=str(next(self._names))
            ):
                final = output
        except (EngineDeadError, EngineGenerateError, VLLMValidationError, ValueError) as error:
            raise EngineError(f"vLLM failed: {_line(error.__cause__ or error)}") from error
        if final is None:
            raise EngineError("vLLM ended a request without an answer")
        if scored:
            return _scored(final.prompt_logprobs, start, scored)
        [answer] = final.outputs
        if answer.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a request with `{answer.finish_reason}`")
        return Reply(
            text=answer.text,
            finish_reason=answer.finish_reason,
            prompt_tokens=len(prompt),
            completion_tokens=len(answer.token_ids),
            logprob=float(answer.cumulative_logprob),
        )

    def tokens(self, text: str) -> Tokens | None:
        """See `Engine`; None where the model's tokenizer is one written in Python."""
        return None if self._speller is None else self._speller.tokens(text)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    @cached_property
    def _speller(self) -> Speller | None:
        return model_speller(self._folder)

    @cached_property
    def _folder(self) -> Path:
        return model_folder(self.config.model, self.config.revision)

    @cached_property
    def _template(self) -> ChatTemplate:
        return load_chat_template(str(self._folder))


def sampling_params(request: Request, identity: str, room: int) -> Any:
    """vLLM's `SamplingParams` of a request; `room` is the tokens left in the context."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    if request.scored:
        return SamplingParams(
            temperature=0.0,
            max_tokens=1,  # it has to write one; it is not looked at
            prompt_logprobs=0,  # those of the prompt's own tokens
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    sampling = request.sampling
    schema = None
    if request.schema is not None:
        schema = StructuredOutputsParams(json=json.loads(request.schema))
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=min(sampling.max_tokens, room),
        stop=list(sampling.stop) or None,
        seed=request_seed(identity, request),
        logprobs=0,  # that of the token drawn, which `cumulative_logprob` adds up
        structured_outputs=schema,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _scored(logprobs: Any, start: int, scored: tuple[int, ...]) -> Reply:
    """`logprobs`: by token of prompt and text, a mapping of token to an object with `logprob`."""
    try:
        each = [logprobs[start + i][token].logprob for i, token in enumerate(scored)]
        total = math.fsum(each)
    except (KeyError, TypeError, IndexError) as error:
        raise EngineError("vLLM gives no log-probabilities of the text to score") from error
    if not math.isfinite(total):
        raise BadReply("not_json", "the log-probabilities are not finite")
    return Reply("", "stop", start, len(scored), total)


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
