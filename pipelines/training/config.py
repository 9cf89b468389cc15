"""Settings of reward training. Importing this module imports no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from pipelines.config import Config
from schemas.errors import MissingExtra, UserError


class TrainConfig(Config):
    """What the trainers share. The defaults suit the bundled policy and a few thousand rows."""

    base: str
    """Folder of the causal language model to start from: safetensors, a tokenizer, a chat template."""
    epochs: Annotated[int, Ge(1)] = 3
    """Passes over the data."""
    batch_size: Annotated[int, Ge(1)] = 16
    """Rows (pairs or step-labelled responses) per optimizer step and process."""
    learning_rate: Annotated[float, Gt(0)] = 5e-4
    """Peak learning rate of AdamW; for models of a billion parameters and more take about 1e-5."""
    max_length: Annotated[int, Ge(2)] = 512
    """Tokens of prompt and response; a row with a longer text is rejected, never cut."""
    warmup_share: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the steps in which the learning rate rises; afterwards it falls as a cosine to 0."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """AdamW's weight decay; norms and biases have none."""
    bf16: bool = False
    """Run the backbone in bfloat16 by autocast (for GPUs); weights, head and loss stay float32."""
    threads: Annotated[int, Ge(1)] | None = None
    """CPU threads; none: torch's choice. Weights are equal bit by bit only for equal numbers."""


class RewardConfig(TrainConfig):
    """A Bradley-Terry reward model."""

    center: Annotated[float, Ge(0)] = 0.01
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards about 0 (arXiv 2312.09244)."""
    margin: bool = False
    """Ask for a reward difference beyond the row's margin (Llama 2, arXiv 2307.09288, eq. 2)."""


Target = Literal["value", "sound", "label"]


class StepsConfig(TrainConfig):
    """A process reward model: one probability a step."""

    epochs: Annotated[int, Ge(1)] = 1
    """Passes over the data."""
    learning_rate: Annotated[float, Gt(0)] = 1e-5
    """Peak learning rate of AdamW. Low: the head starts from a fit of the base's own likelihoods,
    which a few thousand labels at a higher rate would make it unlearn."""
    target: Target = "value"
    """What a step is trained towards: its estimated `value`, else P(sound), else its hard label; P(no
    error so far), `sound`, else the label; or the `label` alone. Steps without any teach nothing."""


def require_training() -> None:
    """Raise MissingExtra unless what training and scoring need is installed."""
    for package in ("torch", "transformers", "safetensors", "accelerate"):
        if find_spec(package) is None:
            raise MissingExtra(package, "train")


def model_folder(folder: str | Path) -> Path:
    """The folder of a model. Raises UserError if it holds none (names on a hub are not looked up)."""
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: no model here (config.json is missing); give a model's folder")
    return path
