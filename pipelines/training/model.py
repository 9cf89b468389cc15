"""Backbones, heads and tokenizers: made from a base, saved and loaded as safetensors only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as hf_logging

from pipelines.training.config import TrainConfig, model_folder
from schemas.errors import UserError

PAD_TOKEN = "<|pad|>"


class Scorer(nn.Module):
    """A linear head over a causal backbone, read at tokens that are named by index.

    Rows are padded on the right and attention is causal, so what stands in the padding cannot
    change a score; no pad id is looked for.
    """

    def __init__(self, backbone: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self, input_ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """Float32 scores (k,) at tokens (rows[i], columns[i]) of input_ids (batch, tokens)."""
        hidden = self.backbone(input_ids=input_ids, use_cache=False).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):
            scores: torch.Tensor = self.head(hidden[rows, columns].float())
        return scores.squeeze(-1)


@contextmanager
def _quiet() -> Iterator[None]:
    """A fresh head is meant to be fresh: transformers' load report about it would only alarm."""
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(before)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder, padding on the right with a token that is not EOS.

    Raises UserError if it is not a fast one (offsets are needed) or lacks an EOS token or a chat
    template.
    """
    path = model_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the tokenizer cannot be loaded: {_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{path}: training needs a fast tokenizer (tokenizer.json)")
    if tokenizer.eos_token_id is None or not tokenizer.chat_template:
        raise UserError(f"{path}: the tokenizer needs an EOS token and a chat template")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Models that look for the last token that is not padding would skip the EOS we score.
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "right"
    return tokenizer


def new_reward_model(
    base: str | Path, tokenizer: PreTrainedTokenizerFast, seed: int
) -> tuple[PreTrainedModel, Scorer]:
    """A sequence classifier with one label over the base's backbone, and the scorer that trains it.

    Both share their weights. The head starts with a standard deviation of 1/(d+1) (Stiennon et
    al., arXiv 2009.01325). Raises UserError for a base that has no linear head on its last token.
    """
    model = load_reward_model(base)
    fit_vocabulary(model, tokenizer)
    scorer = reward_scorer(model)
    start_head(scorer.head, seed)
    return model, scorer


def load_reward_model(folder: str | Path) -> PreTrainedModel:
    """A folder's weights as a sequence classifier with one label, in float32."""
    return pretrained(AutoModelForSequenceClassification, folder, num_labels=1)


def reward_scorer(model: PreTrainedModel) -> Scorer:
    """The scorer of a sequence classifier, sharing its weights. Raises UserError: not a causal LM's."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"{type(model).__name__}: no linear head on the last token; use a causal LM"
        )
    return Scorer(model.base_model, head)


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens the model reads; none: it does not say."""
    length: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length


def render_prompt(tokenizer: PreTrainedTokenizerFast, messages: Sequence[dict[str, str]]) -> str:
    """The conversation up to where the assistant's answer begins. Raises jinja2's TemplateError."""
    return str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    )


def render_finished(tokenizer: PreTrainedTokenizerFast, messages: Sequence[dict[str, str]]) -> str:
    """The conversation with its finished last turn; it ends with EOS. Raises jinja2's TemplateError.

    Some templates write a newline after EOS, others no EOS at all; a reward is read at EOS.
    """
    text = str(tokenizer.apply_chat_template(list(messages), tokenize=False))
    eos = str(tokenizer.eos_token)
    bare = text.rstrip()
    return bare if bare.endswith(eos) else text + eos


def write_card(
    folder: Path,
    title: str,
    config: TrainConfig,
    table: pa.Table,
    figures: Mapping[str, float | int],
) -> None:
    """Write the model card README.md: base, data, settings and figures; no paths, no clock times."""
    settings = {**config.model_dump(mode="json"), "base": Path(config.base).name}
    del settings["threads"]
    sources = {name: _distinct(table, name) for name in ("source", "licence", "method", "rule")}
    facts = {"rows": len(table), **{k: v for k, v in sources.items() if v}}
    lines = [
        "---\nlibrary_name: transformers\ntags: [reward-model, prefinery]\n---\n",
        f"# {title}\n",
        *_section("Data", facts),
        *_section("Settings", settings),
        *_section("Figures", figures),
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _section(title: str, values: Mapping[str, Any]) -> list[str]:
    # JSON in code spans: names of sources are untrusted and must not act as Markdown or HTML.
    rows = [f"- {key}: `{json.dumps(value).replace('`', '')}`" for key, value in values.items()]
    return [f"## {title}\n", *rows, ""]


def _distinct(table: pa.Table, column: str) -> list[str]:
    if column not in table.column_names:
        return []
    return sorted(v for v in pc.unique(table[column]).to_pylist() if v is not None)[:20]


def pretrained(kind: Any, folder: str | Path, **options: Any) -> PreTrainedModel:
    """Weights of a folder in float32 as an Auto class reads them. Raises UserError."""
    path = model_folder(folder)
    try:
        with _quiet():
            model: PreTrainedModel = kind.from_pretrained(
                path,
                local_files_only=True,
                use_safetensors=True,  # a pickled checkpoint could run code
                dtype=torch.float32,
                **options,
            )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the model cannot be loaded: {_line(error)}") from error
    return model


def fit_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give the model the tokenizer's pad id, and a row for it where the token was added."""
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def start_head(head: nn.Linear, seed: int) -> None:
    """Fresh weights of standard deviation 1/(d+1), d the head's inputs; no bias."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.normal_(0.0, 1.0 / (head.in_features + 1), generator=generator)
        if head.bias is not None:
            head.bias.zero_()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
