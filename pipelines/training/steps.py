"""Trains a process reward model on emitted step labels, with soft targets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.config import Advance, silent
from pipelines.training.config import StepsConfig, require_training
from pipelines.training.reward import Trained, check_length, no_rows
from schemas.errors import UserError

STAGE = "train_steps"


def train_steps(
    config: StepsConfig,
    examples: pa.Table,
    validation: pa.Table | None,
    out: Path,
    seed: int,
    advance: Advance = silent,
) -> Trained:
    """Train on `StepExample` rows and write the model to `out`.

    Each step is scored (see step_model.py); `config.target` says towards what. `out` holds the LM and the head
    (config, safetensors), the tokenizer and a model card; nothing is pickled. Figures: `rows`,
    `rejected`, `steps`, `parameters`, `optimizer_steps`, `tokens`, `train_loss` and, with a
    validation table, `validation_rows`, `validation_rejected`, `validation_loss` and
    `validation_brier` (both against the targets).

    Raises UserError for a base that cannot be used and where no row is left, MissingExtra.
    """
    require_training()
    import torch

    from pipelines.training.collate import collate_steps, step_rows
    from pipelines.training.model import load_tokenizer, write_card
    from pipelines.training.scoring import read
    from pipelines.training.step_model import fit_likelihood, new_step_model, save_step_model
    from pipelines.training.trainer import fit, reproducible, step_loss

    with reproducible(seed, config.threads):
        tokenizer = load_tokenizer(config.base)
        scorer = new_step_model(config.base, tokenizer, seed)
        check_length(config, scorer.backbone)
        rows, rejects = step_rows(examples, tokenizer, config.max_length, config.target, STAGE)
        if not rows:
            raise UserError(no_rows(len(examples), rejects))
        collate = partial(collate_steps, pad=int(tokenizer.pad_token_id))
        by_length, size = sorted(rows, key=len), config.batch_size
        fit_likelihood(
            scorer, (collate(by_length[i : i + size]) for i in range(0, len(rows), size))
        )
        figures: dict[str, float | int] = {
            "rows": len(rows),
            "rejected": len(rejects),
            "steps": sum(len(r.spans) for r in rows),
            "parameters": sum(p.numel() for p in scorer.parameters()),
            **fit(config, scorer, rows, collate, step_loss, out, seed, advance),
        }
        if validation is not None:
            held, more = step_rows(validation, tokenizer, config.max_length, config.target, STAGE)
            rejects += more
            figures |= {"validation_rows": len(held), "validation_rejected": len(more)}
            if held:
                logits = np.concatenate(
                    read(scorer, [r.ids for r in held], [r.spans for r in held])
                )
                target = np.concatenate([r.targets for r in held]).astype(np.float64)
                batch = {"target": torch.from_numpy(target)}
                figures["validation_loss"] = float(step_loss(torch.from_numpy(logits), batch))
                share = 1.0 / (1.0 + np.exp(-logits))
                figures["validation_brier"] = float(np.square(share - target).mean())
        out.mkdir(parents=True, exist_ok=True)
        save_step_model(scorer, out)
        tokenizer.save_pretrained(out)
        write_card(out, "Process reward model", config, examples, figures)
    return Trained(figures, tuple(rejects))
