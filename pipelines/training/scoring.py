"""Trained models as scorers of texts. torch is imported when a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipelines.training.config import require_training
from schemas.errors import UserError
from schemas.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from pipelines.training.model import Scorer
    from pipelines.training.step_model import StepScorer

BATCH_TOKENS = 16_384  # padded tokens of a batch; bounds memory whatever the lengths
Floats = np.ndarray[Any, np.dtype[np.float64]]
Encoded = tuple[Any, Sequence[int] | Any]
Answered = tuple[tuple[Message, ...], str]
Stepped = tuple[tuple[Message, ...], tuple[str, ...]]


class _Model:
    """What both share: a scorer, its tokenizer, and how many tokens it reads."""

    def __init__(self, scorer: Scorer | StepScorer, tokenizer: PreTrainedTokenizerFast) -> None:
        import torch

        from pipelines.training.model import context_length

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.scorer = scorer.to(self.device).eval()
        self.tokenizer = tokenizer
        self.context = context_length(scorer.backbone)

    def _encode(self, item: Any) -> Encoded | str:
        """Token ids and the indices to read, or the reason code why there are none."""
        from jinja2.exceptions import TemplateError

        try:
            ids, reads = self._tokens(item)
        except TemplateError:
            return "bad_template"
        except ValueError:
            return "no_step_token"
        return "too_long" if self.context is not None and len(ids) > self.context else (ids, reads)

    def _tokens(self, item: Any) -> Encoded:
        raise NotImplementedError

    def _read(self, items: Sequence[Any]) -> list[Floats]:
        encoded: list[Encoded] = []
        # Samples of one prompt often say the same: a text is scored once.
        place: dict[Any, int] = {item: i for i, item in enumerate(dict.fromkeys(items))}
        for i, item in enumerate(place):
            made = self._encode(item)
            if isinstance(made, str):
                raise UserError(
                    f"text {i} cannot be scored ({made}; the model reads {self.context} tokens); "
                    "leave such texts out"
                )
            encoded.append(made)
        found = read(self.scorer, [ids for ids, _ in encoded], [reads for _, reads in encoded])
        return [found[place[item]] for item in items]

    def refusals(self, items: Sequence[Any]) -> list[str | None]:
        """Why each item cannot be scored: `too_long`, `bad_template`, `no_step_token`; none: it can."""
        made = [self._encode(item) for item in items]
        return [m if isinstance(m, str) else None for m in made]


class RewardModel(_Model):
    """A Bradley-Terry reward model: higher is better, differences are log-odds."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a folder that `train_reward` wrote. Raises UserError, MissingExtra."""
        require_training()
        from pipelines.training.model import load_reward_model, load_tokenizer, reward_scorer

        tokenizer = load_tokenizer(folder)
        return cls(reward_scorer(load_reward_model(folder)), tokenizer)

    def score(self, items: Sequence[Answered]) -> Floats:
        """Reward of each (messages, answer), in the order given, shape (items,).

        Raises UserError for an item that `refusals` gives a reason for.
        """
        return np.asarray([scores[0] for scores in self._read(items)], np.float64)

    def _tokens(self, item: Answered) -> Encoded:
        from pipelines.training.collate import encode_finished

        ids = encode_finished(self.tokenizer, [_chat(*item)])[0]
        return ids, [len(ids) - 1]


class StepModel(_Model):
    """A process reward model: the probability that each step is right."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a folder that `train_steps` wrote. Raises UserError, MissingExtra."""
        require_training()
        from pipelines.training.model import load_tokenizer
        from pipelines.training.step_model import load_step_model

        return cls(load_step_model(folder), load_tokenizer(folder))

    def score(self, items: Sequence[Stepped]) -> list[list[float]]:
        """Probabilities of each (messages, completions): one a step.

        Raises UserError for an item that `refusals` gives a reason for.
        """
        return [(1.0 / (1.0 + np.exp(-row))).tolist() for row in self._read(items)]

    def _tokens(self, item: Stepped) -> Encoded:
        from pipelines.training.collate import encode_steps

        return encode_steps(self.tokenizer, _chat(item[0]), item[1])


def read(scorer: Scorer | StepScorer, ids: Sequence[Any], reads: Sequence[Any]) -> list[Floats]:
    """Scores at the tokens (or of the spans) `reads[i]` of `ids[i]`, batched by length, in order."""
    import torch

    from pipelines.training.collate import collate_ids, collate_spans

    device = scorer.head.weight.device
    found: list[Floats] = [np.empty(0)] * len(ids)
    for batch in _batches([len(i) for i in ids]):
        # Any id serves as padding: attention is causal and scores are read by index.
        collate = collate_spans if np.ndim(reads[batch[0]]) == 2 else collate_ids
        inputs = collate([ids[i] for i in batch], [reads[i] for i in batch], pad=0)
        with torch.inference_mode():
            scores = scorer(**{name: tensor.to(device) for name, tensor in inputs.items()})
        flat = scores.cpu().numpy().astype(np.float64)
        borders = np.cumsum([len(reads[i]) for i in batch])[:-1]
        for i, part in zip(batch, np.split(flat, borders), strict=True):
            found[i] = part
    return found


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    batches: list[list[int]] = []
    # Longest first: a batch's first row tells its width.
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _chat(messages: tuple[Message, ...], answer: str | None = None) -> list[dict[str, str]]:
    chat = [{"role": m.role, "content": m.content} for m in messages]
    return chat if answer is None else [*chat, {"role": "assistant", "content": answer}]
