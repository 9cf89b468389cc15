"""One trainer for both heads: deterministic, batched by length, silent on stdout."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipelines.config import Advance
from pipelines.memory import give_back_large_blocks
from pipelines.training.config import TrainConfig
from pipelines.training.model import Scorer
from pipelines.training.step_model import StepScorer
from schemas.errors import UserError

WINDOW = 50  # batches that are sorted by length together
READ = ("input_ids", "rows", "columns", "begins", "starts")
"""What a scorer is given of a batch; the rest is the loss's."""
Loss = Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]


def pair_loss(
    scores: torch.Tensor, batch: dict[str, torch.Tensor], *, center: float, margin: bool
) -> torch.Tensor:
    """Bradley-Terry with soft targets: mean of -[p log s(d) + (1-p) log s(-d)], s the logistic.

    scores (2b,) holds all chosen, then all rejected; d = r_chosen - r_rejected, less the row's
    margin (where above 0) with `margin`. `center` weighs mean((r_chosen + r_rejected)^2).
    """
    chosen, rejected = scores.chunk(2)
    difference = chosen - rejected
    if margin:
        difference = difference - batch["margin"].clamp(min=0.0)
    loss = binary_cross_entropy_with_logits(difference, batch["probability"])
    return loss + center * (chosen + rejected).square().mean()


def step_loss(scores: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Binary cross-entropy of the steps' logits (k,) with soft targets (k,), averaged over steps."""
    return binary_cross_entropy_with_logits(scores, batch["target"])


class LengthBuckets(torch.utils.data.Sampler[int]):
    """Indices in an order by seed and epoch, so that each batch holds rows of about one length.

    Rows are shuffled, sorted within windows of 50 batches, cut into batches, and the batches
    are shuffled; a batch that is not full stays last.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        window = np.arange(len(order)) // (self.batch_size * WINDOW)
        order = order[np.lexsort((self.lengths[order], window))]
        full = len(order) // self.batch_size * self.batch_size
        batches = order[:full].reshape(-1, self.batch_size)
        yield from rng.permutation(batches).ravel().tolist()
        yield from order[full:].tolist()


class Progress(TrainerCallback):
    """Counts rows and tokens and tells `advance` after every optimizer step."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance
        self.tokens = 0
        self._rows = 0
        self._new = 0

    def count(self, rows: int, tokens: int) -> None:
        """Note a batch as it is put together."""
        self._rows += rows
        self._new += tokens
        self.tokens += tokens

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Report what came since the last step."""
        self.advance(self._rows, self._new)
        self._rows = self._new = 0


class HeadTrainer(Trainer):
    """`transformers.Trainer` over a `Scorer`, with the loss given and batches of like lengths."""

    def __init__(self, *, loss: Loss, seed: int, **options: Any) -> None:
        super().__init__(**options)
        self.loss = loss
        self.seed = seed
        # Its own printer writes to stdout, which belongs to the command's result.
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:
        dataset: Sequence[Sized] = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row) for row in dataset]
        return LengthBuckets(lengths, self.args.per_device_train_batch_size, self.seed)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Loss of a collated batch; the outputs are the scores."""
        scores = model(**{name: inputs[name] for name in READ if name in inputs})
        loss = self.loss(scores, inputs)
        return (loss, scores) if return_outputs else loss


def fit(
    config: TrainConfig,
    scorer: Scorer | StepScorer,
    rows: Sequence[Any],
    collate: Callable[[Sequence[Any]], dict[str, torch.Tensor]],
    loss: Loss,
    out: Path,
    seed: int,
    advance: Advance,
) -> dict[str, float | int]:
    """Train a scorer in place, the same bits for the same seed, rows, machine and threads.

    Returns `optimizer_steps`, `tokens` (read in all epochs) and `train_loss` (mean over all steps).
    Raises UserError if the loss is no longer finite.
    """
    args = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_share,
        weight_decay=config.weight_decay,
        max_grad_norm=1.0,
        bf16=config.bf16,
        optim="adamw_torch",
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        log_level="error",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    # More than one device is for launchers: DataParallel would cut a batch's indices apart.
    args._n_gpu = min(args.n_gpu, 1)
    progress = Progress(advance)

    def counted(batch: Sequence[Any]) -> dict[str, torch.Tensor]:
        progress.count(len(batch), sum(row.tokens for row in batch))
        return collate(batch)

    trainer = HeadTrainer(
        loss=loss,
        seed=seed,
        model=scorer,
        args=args,
        data_collator=counted,
        train_dataset=rows,
        callbacks=[progress],
    )
    done = trainer.train()
    if not math.isfinite(done.training_loss):
        raise UserError("training diverged (the loss is not finite); lower learning_rate")
    scorer.eval()
    return {
        "optimizer_steps": int(done.global_step),
        "tokens": progress.tokens,
        "train_loss": float(done.training_loss),
    }


@contextmanager
def reproducible(seed: int, threads: int | None) -> Iterator[None]:
    """Deterministic algorithms and seeded generators inside; everything as it was afterwards."""
    give_back_large_blocks()
    # cuBLAS is deterministic only with a workspace of a set size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    count = torch.get_num_threads()
    python, numpy = random.getstate(), np.random.get_state()
    torch.use_deterministic_algorithms(True)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        torch.set_num_threads(count)
        random.setstate(python)
        np.random.set_state(numpy)
