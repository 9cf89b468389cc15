"""What the local engine's thread works with: the requests it was given, and the model it loads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.engines.base import Reply, Request, Tokens
from pipelines.memory import give_back_large_blocks
from schemas.errors import BadReply, EngineError, MissingExtra

if TYPE_CHECKING:
    import torch

    from pipelines.engines.decode import Decoder, Row, Written
    from pipelines.engines.local import LocalConfig
    from pipelines.engines.scoring import ScoredRow


class Job:
    """A request, the text of its prompt before `prefix_ids`, and the caller who waits for the reply.

    `spelled`: the text to score as the tokenizer spells it, if it can.
    """

    def __init__(
        self, request: Request, prompt: str, seed: int, spelled: Tokens | None = None
    ) -> None:
        self.request = request
        self.prompt = prompt
        self.seed = seed
        self.spelled = spelled
        self.future: Future[Reply] = Future()

    def answer(self, reply: Reply) -> None:
        """Give the caller the reply, if somebody still waits for it."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(reply)

    def fail(self, error: Exception) -> None:
        """Raise at the caller's, unless that is settled already."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def dropped(self, running: set[Job]) -> bool:
        """Whether the caller has gone away."""
        if not self.future.cancelled():
            return False
        running.discard(self)
        return True


class Model:
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
        """Made in the engine's thread, under `inference_mode`."""
        from pipelines.engines.decode import Decoder

        size = config.cache_mib * 2**20
        return Decoder(self.model, config.batch, sorted(self.eos), self._stops, size)

    def row(self, job: Job) -> Row:
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

    def reply(self, job: Job, written: Written) -> Reply:
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

    def scored_row(self, job: Job) -> ScoredRow:
        """Raises BadReply: `too_long`, `bad_request`."""
        from pipelines.engines.scoring import ScoredRow, scored_ids

        request = job.request
        prompt = self._tokens(job.prompt) + request.prefix_ids
        before = job.prompt + (request.prefix if request.prefix_ids else "")
        text = scored_ids(job.spelled, self._tokens, before, request.scored)
        if len(prompt) + len(text) > self.context:
            raise BadReply(
                "too_long",
                f"prompt of {len(prompt)} tokens and a text of {len(text)} to score; "
                f"the context has {self.context}",
            )
        return ScoredRow(prompt, text, job)

    def scores(
        self, decoder: Decoder, rows: Sequence[ScoredRow]
    ) -> Iterator[tuple[ScoredRow, Reply]]:
        """Raises EngineError where the arithmetic has broken down."""
        from pipelines.engines.scoring import score

        for row, logprob in score(self.model, decoder.prefixes, rows):
            if not math.isfinite(logprob):
                raise EngineError(f"the model gives {logprob}; use another dtype")
            yield (
                row,
                Reply("", "stop", len(row.prompt), len(row.text), round(logprob, 6) + 0.0),
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
