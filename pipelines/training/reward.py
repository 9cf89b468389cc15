"""Trains a Bradley-Terry reward model on emitted preferences, with soft targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.config import Advance, silent
from pipelines.training.config import RewardConfig, TrainConfig, require_training
from schemas.errors import UserError
from schemas.records import Reject

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pipelines.training.collate import PairRow
    from pipelines.training.model import Scorer

STAGE = "train_reward"


@dataclass(frozen=True)
class Trained:
    """What training found, and the rows that it could not use."""

    figures: dict[str, float | int]
    """Counts and losses by name."""
    rejects: tuple[Reject, ...]
    """Rows left out, of training and validation, with their reasons."""


def train_reward(
    config: RewardConfig,
    preferences: pa.Table,
    validation: pa.Table | None,
    out: Path,
    seed: int,
    advance: Advance = silent,
) -> Trained:
    """Train on `Preference` rows and write the model to `out`.

    The target of a row is its `probability`. `out` holds a sequence classifier with one label
    (config, safetensors), its tokenizer and a model card; nothing is pickled. Figures: `rows`,
    `rejected`, `parameters`, `optimizer_steps`, `tokens`, `train_loss` and, with a validation
    table, `validation_rows`, `validation_rejected`, `validation_loss`, `validation_accuracy`
    (share of pairs whose chosen response scores higher, ties half).

    Raises UserError for a base that cannot be used and where no row is left, MissingExtra.
    """
    require_training()
    from pipelines.training.collate import collate_pairs, pair_rows
    from pipelines.training.model import load_tokenizer, new_reward_model, write_card
    from pipelines.training.trainer import fit, pair_loss, reproducible

    with reproducible(seed, config.threads):
        tokenizer = load_tokenizer(config.base)
        model, scorer = new_reward_model(config.base, tokenizer, seed)
        check_length(config, model)
        rows, rejects = pair_rows(preferences, tokenizer, config.max_length, STAGE)
        if not rows:
            raise UserError(no_rows(len(preferences), rejects))
        loss = partial(pair_loss, center=config.center, margin=config.margin)
        collate = partial(collate_pairs, pad=int(tokenizer.pad_token_id))
        figures: dict[str, float | int] = {
            "rows": len(rows),
            "rejected": len(rejects),
            "parameters": sum(p.numel() for p in scorer.parameters()),
            **fit(config, scorer, rows, collate, loss, out, seed, advance),
        }
        if validation is not None:
            held, more = pair_rows(validation, tokenizer, config.max_length, STAGE)
            rejects += more
            figures |= _validate(config, scorer, held) | {"validation_rejected": len(more)}
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        write_card(out, "Bradley-Terry reward model", config, preferences, figures)
    return Trained(figures, tuple(rejects))


def check_length(config: TrainConfig, model: PreTrainedModel) -> None:
    """Raise UserError if rows may be longer than the base reads."""
    from pipelines.training.model import context_length

    context = context_length(model)
    if context is not None and config.max_length > context:
        raise UserError(f"max_length is {config.max_length}, but the base reads {context} tokens")


def no_rows(given: int, rejects: list[Reject]) -> str:
    """The line that says why nothing is left to train on."""
    codes = sorted({r.code for r in rejects})
    return f"nothing to train on: {given} rows given, all rejected ({', '.join(codes) or 'none'})"


def _validate(config: RewardConfig, scorer: Scorer, rows: list[PairRow]) -> dict[str, float | int]:
    import torch

    from pipelines.training.scoring import read
    from pipelines.training.trainer import pair_loss

    if not rows:
        return {"validation_rows": 0}
    ids = [r.chosen for r in rows] + [r.rejected for r in rows]
    scores = np.concatenate(read(scorer, ids, [[len(i) - 1] for i in ids]))
    batch = {
        "probability": torch.tensor([r.probability for r in rows], dtype=torch.float64),
        "margin": torch.tensor([r.margin for r in rows], dtype=torch.float64),
    }
    loss = pair_loss(torch.from_numpy(scores), batch, center=config.center, margin=config.margin)
    chosen, rejected = np.split(scores, 2)
    right = np.where(chosen == rejected, 0.5, chosen > rejected)
    return {
        "validation_rows": len(rows),
        "validation_loss": float(loss),
        "validation_accuracy": float(right.mean()),
    }
