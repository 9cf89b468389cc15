"""Judges that are reward models: a sequence classifier's folder, or one behind an HTTP server.

Each response has a score as the model gives it, each pair 2 sigmoid(score a - score b) - 1: a
Bradley-Terry model's probability as a vote. Order means nothing to them. A text is scored once.
Nothing is ever truncated: a text beyond the model's length has no score and the reason `too_long`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge

from pipelines.config import Advance, Config
from pipelines.engines.folder import folder_digest, model_folder
from pipelines.judge.cases import (
    Case,
    Engines,
    Opinions,
    by_case,
    opinions_of,
    responses_of,
)
from pipelines.judge.reward_server import Client, Score, Text
from pipelines.judge.reward_server import RewardServerConfig as RewardServerConfig
from schemas.errors import BadReply, EngineError, MissingExtra
from schemas.record import digest
from schemas.records import Prompt, Response


class RewardModelConfig(Config):
    """A reward model in this process: any sequence classifier with one output."""

    kind: Literal["reward_model"] = "reward_model"
    """Judge kind."""
    model: str
    """Model folder (absolute path), such as one that reward training wrote, or Hugging Face Hub id;
    weights as safetensors. Code that comes with a model is never run."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; none: its main branch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic; in bfloat16 what else is in a batch can move a score."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes CUDA where there is one."""
    batch_tokens: Annotated[int, Ge(1)] = 16_384
    """Padded tokens of a batch; a longer text is a batch of its own."""
    max_length: Annotated[int, Ge(1)] | None = None
    """Most tokens of a text; none: what the model and its tokenizer were made for."""
    template: Literal["auto", "chat", "finished", "pair"] = "auto"
    """How a text is made. `chat`: the tokenizer's chat template. `finished`: the same, ended with the
    end token and nothing after it, as reward training does. `pair`: prompt and answer as the
    tokenizer's two segments. `auto`: `finished` for a folder whose card says that reward training
    wrote it, else `chat` where there is a chat template, else `pair`."""


def material(config: RewardModelConfig | RewardServerConfig) -> str | None:
    """Digest of the model's folder; none for a served model, whose name is all that is known of it.

    Raises EngineError where there is no usable folder.
    """
    if isinstance(config, RewardServerConfig):
        return None
    return digest("reward_model", folder_digest(model_folder(config.model, config.revision)))


async def judge(
    name: str,
    config: RewardModelConfig | RewardServerConfig,
    cases: Sequence[Case],
    engines: Engines,
    seed: int,
    advance: Advance,
    held: Held | None = None,
) -> Opinions:
    """One vote a response, its raw score, and one a pair, in [-1, 1]; no engine is asked.

    A model in this process is `held`'s, else it is loaded for these cases alone.
    Reason codes of what has no score: `too_long`, `bad_template`, `not_finite`, and of a server
    `bad_request`, `bad_shape`, `not_json`, `server_error`, `wrong_model`. Raises EngineError for a
    model that cannot be used, EngineDown for a server that does not answer, MissingExtra.
    """
    texts = list(dict.fromkeys(_text(c.prompt, r) for c in cases for r in (c.a, c.b)))
    if not texts:
        return Opinions([], [])
    finished = by_case(len(cases), len(texts), advance)
    if isinstance(config, RewardServerConfig):
        scores = await Client(config).scores(texts, finished)
    else:
        loop = asyncio.get_running_loop()
        with Held(config) if held is None else nullcontext(held) as own:
            scores = await asyncio.to_thread(
                own.scores, texts, lambda n: loop.call_soon_threadsafe(finished, n)
            )
    score = dict(zip(texts, scores, strict=True))
    outcomes = {r.id: score[_text(p, r)] for p, r in responses_of(cases).values()}
    return opinions_of(name, "reward_model", cases, outcomes)


def _text(prompt: Prompt, response: Response) -> Text:
    return prompt.messages, response.text


# --- in this process -------------------------------------------------------------------------------


class Held:
    """A model that is loaded when it first has something to score, and let go at the end of `with`.

    So a judge's shards of cases, and its probes before them, are scored by one model.
    """

    def __init__(self, config: RewardModelConfig) -> None:
        self.config = config
        self._model: _Model | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._model = None

    def scores(self, texts: Sequence[Text], finished: Callable[[int], Any]) -> list[Score]:
        """The score of every text; `finished` is told how many are done. Raises EngineError."""
        if self._model is None:
            self._model = _Model(self.config)
        return _scores(self._model, self.config.batch_tokens, texts, finished)


def _scores(
    model: _Model, batch_tokens: int, texts: Sequence[Text], finished: Callable[[int], Any]
) -> list[Score]:
    """Batched by length, the longest first."""
    scores: list[Score] = [0.0] * len(texts)
    encoded: dict[int, dict[str, list[int]]] = {}
    for i, text in enumerate(texts):
        try:
            encoded[i] = model.encode(text)
        except BadReply as error:
            scores[i] = error
            finished(1)
    batch: list[int] = []
    for i in sorted(encoded, key=lambda i: (-_length(encoded[i]), i)):
        width = _length(encoded[batch[0]]) if batch else 0
        full = (len(batch) + 1) * width > batch_tokens
        if batch and (full or not model.together(width, _length(encoded[i]))):
            _fill(scores, batch, model.score([encoded[j] for j in batch]))
            finished(len(batch))
            batch = []
        batch.append(i)
    if batch:
        _fill(scores, batch, model.score([encoded[j] for j in batch]))
        finished(len(batch))
    return scores


def _length(row: dict[str, list[int]]) -> int:
    return len(row["input_ids"])


def _fill(scores: list[Score], batch: Sequence[int], found: Sequence[float]) -> None:
    for i, score in zip(batch, found, strict=True):
        fine = math.isfinite(score)
        scores[i] = score if fine else BadReply("not_finite", f"the model gives {score}")


class _Model:
    """A sequence classifier with one output, and its tokenizer.

    A causal model with a linear head is read at the very token at which its own forward reads a
    text that stands alone, by index; what pads a row comes after that and cannot be seen from it.
    Others get a mask over their padding, or are not padded at all.
    """

    def __init__(self, config: RewardModelConfig) -> None:
        try:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise MissingExtra(error.name or "torch", "local") from error
        folder = model_folder(config.model, config.revision)
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise EngineError("device is `cuda` and there is no usable CUDA device; use `cpu`")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=getattr(torch, config.dtype),
                use_safetensors=True,  # a pickled checkpoint could run code
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise EngineError(
                f"cannot load the reward model at {folder}: {_line(error)}"
            ) from error
        if model.config.num_labels != 1:
            raise EngineError(
                f"{folder}: the model has {model.config.num_labels} outputs; a reward model has one"
            )
        if missing := sorted(loading["missing_keys"]):
            # transformers would go on with random weights: most often a model without its head.
            raise EngineError(f"{folder}: not a trained reward model: {missing[0]} is missing")
        self.model = model.to(device).eval()
        self.device = device
        self.tokenizer.padding_side = "right"
        self.template = self._template(config, folder)
        text_config = model.config.get_text_config()
        self.max_length = self._limit(config, text_config)
        self.pad = text_config.pad_token_id
        linear = isinstance(getattr(model, "score", None), torch.nn.Linear)
        self.head: Any = model.score.float() if linear and self._is_causal() else None

    def _template(self, config: RewardModelConfig, folder: Path) -> str:
        if config.template != "auto":
            if config.template != "pair" and not self.tokenizer.chat_template:
                raise EngineError(f"{folder}: no chat template; use the template `pair`")
            return config.template
        if not self.tokenizer.chat_template:
            return "pair"
        card = folder / "README.md"
        head = card.read_text("utf-8", "replace")[:400] if card.is_file() else ""
        return "finished" if "tags: [reward-model, prefinery]" in head else "chat"

    def _limit(self, config: RewardModelConfig, text_config: Any) -> int | None:
        made_for = getattr(text_config, "max_position_embeddings", None)
        embeddings = getattr(self.model.base_model, "embeddings", None)
        positions = getattr(embeddings, "position_embeddings", None)
        offset = getattr(positions, "padding_idx", None)
        if made_for is not None and offset is not None:
            made_for -= offset + 1  # RoBERTa counts positions from there
        # Tokenizers that know no limit state a huge one.
        known = int(min(self.tokenizer.model_max_length, 2**40))
        limits = (config.max_length, made_for, known if known < 2**40 else None)
        return min((n for n in limits if n is not None), default=None)

    def encode(self, text: Text) -> dict[str, list[int]]:
        """The model's inputs, not padded. Raises BadReply `bad_template`, `too_long`."""
        from jinja2.exceptions import TemplateError

        messages, answer = text
        if self.template == "pair":
            prompt = "\n\n".join(message.content for message in messages)
            made = self.tokenizer(prompt, answer, truncation=False, verbose=False)
        else:
            chat = [{"role": m.role, "content": m.content} for m in messages]
            chat.append({"role": "assistant", "content": answer})
            try:
                written = str(self.tokenizer.apply_chat_template(chat, tokenize=False))
            except (TemplateError, TypeError, ValueError) as error:
                raise BadReply("bad_template", _line(error)) from error
            if self.template == "finished":
                end = str(self.tokenizer.eos_token)
                bare = written.rstrip()
                written = bare if bare.endswith(end) else written + end
            made = self.tokenizer(
                written, add_special_tokens=False, truncation=False, verbose=False
            )
        row = {key: list(made[key]) for key in self.tokenizer.model_input_names if key in made}
        if not row["input_ids"]:
            raise BadReply("bad_template", "the text has no tokens")
        if self.max_length is not None and _length(row) > self.max_length:
            raise BadReply("too_long", f"{_length(row)} tokens, the most is {self.max_length}")
        return row

    def together(self, longer: int, shorter: int) -> bool:
        """Whether texts of these lengths may be one batch."""
        if self.head is not None:
            return True
        if hasattr(self.model, "score"):  # it looks for its last token by itself: leave it one row
            return False
        return longer == shorter or self.tokenizer.pad_token_id is not None

    def score(self, rows: Sequence[dict[str, list[int]]]) -> list[float]:
        """Scores of one batch. Raises EngineError where the model fails."""
        import torch

        try:
            with torch.inference_mode():
                scores = self._read(rows) if self.head is not None else self._forward(rows)
        except (RuntimeError, IndexError) as error:
            hint = "; lower batch_tokens" if "out of memory" in str(error) else ""
            raise EngineError(f"the reward model failed: {_line(error)}{hint}") from error
        return [float(score) for score in scores.float().cpu()]

    def _read(self, rows: Sequence[dict[str, list[int]]]) -> Any:
        import torch

        ids = [row["input_ids"] for row in rows]
        width = max(map(len, ids))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids], device=self.device)
        last = torch.tensor([_last(row, self.pad) for row in ids], device=self.device)
        hidden = self.model.base_model(input_ids=padded, use_cache=False).last_hidden_state
        read = hidden[torch.arange(len(rows), device=self.device), last]
        return self.head(read.float()).squeeze(-1)

    def _forward(self, rows: Sequence[dict[str, list[int]]]) -> Any:
        if len({_length(row) for row in rows}) > 1:
            made = self.tokenizer.pad(
                {key: [row[key] for row in rows] for key in rows[0]}, return_tensors="pt"
            )
        else:
            import torch

            made = {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}
        return self.model(**{key: value.to(self.device) for key, value in made.items()}).logits[
            :, 0
        ]

    def _is_causal(self) -> bool:
        """Whether a token sees nothing of what comes after it: tried, since configs do not say."""
        import torch

        size = self.model.get_input_embeddings().num_embeddings
        ids = torch.arange(8, device=self.device)[None] % size
        with torch.inference_mode():
            whole, half = (
                self.model.base_model(input_ids=i, use_cache=False).last_hidden_state[:, :4].float()
                for i in (ids, ids[:, :4])
            )
        return bool(torch.allclose(whole, half, rtol=1e-2, atol=1e-2 * float(half.abs().max())))


def _last(ids: Sequence[int], pad: int | None) -> int:
    """Where transformers' classifiers read a lone row: its last token that is not the pad token."""
    kept = [i for i, token in enumerate(ids) if token != pad]
    return kept[-1] if kept else 0


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
