"""The process reward model: a head on each step's last token that also reads how likely the step was.

A causal LM knows more of a step than its last hidden state tells: a token that it finds unlikely is
often a wrong one. The head therefore reads, beside the hidden state, four log-probabilities under
the same backbone: sum and minimum over the step's tokens, and over all of the answer's up to its
end. Gradients flow through them, so training also teaches the LM what is unlikely.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from pipelines.training.config import model_folder
from pipelines.training.model import fit_vocabulary, pretrained, start_head
from schemas.errors import UserError

HEAD_FILE = "head.safetensors"
HEAD_CONFIG = "step_head.json"
HEAD_FORMAT = 1
FEATURES = 4
RIDGE = 1e-3


class StepScorer(nn.Module):
    """A linear head over a causal LM's hidden states and token log-probabilities.

    Rows are padded on the right and attention is causal, so what stands in the padding cannot
    change a score.
    """

    def __init__(self, backbone: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self,
        input_ids: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        begins: torch.Tensor,
        starts: torch.Tensor,
    ) -> torch.Tensor:
        """Float32 logits (k,) of the steps that `features` describes."""
        scores: torch.Tensor = self.head(self.features(input_ids, rows, columns, begins, starts))
        return scores.squeeze(-1)

    def features(
        self,
        input_ids: torch.Tensor,
        rows: torch.Tensor,
        columns: torch.Tensor,
        begins: torch.Tensor,
        starts: torch.Tensor,
    ) -> torch.Tensor:
        """Hidden state and log-probabilities (k, hidden + 4) of steps, float32. Step i is tokens
        starts[i]..columns[i] of row rows[i] of input_ids (batch, tokens), and the answer it belongs
        to begins at begins[i].
        """
        hidden = self.backbone.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        first = max(1, int(begins.min()) if len(begins) else 1)
        logits = self.backbone.get_output_embeddings()(hidden[:, first - 1 : -1])
        with torch.autocast(hidden.device.type, enabled=False):
            chosen = input_ids[:, first:, None]
            logprobs = logits.float().log_softmax(-1).gather(-1, chosen)[rows, :, 0]
            at = torch.arange(first, input_ids.shape[1], device=input_ids.device)
            features = [hidden[rows, columns].float()]
            for begin in (starts, begins):
                outside = (at < begin[:, None]) | (at > columns[:, None])
                inside = logprobs.masked_fill(outside, 0.0)
                features += [inside.sum(-1, keepdim=True), inside.amin(-1, keepdim=True)]
        return torch.cat(features, -1)


def new_step_model(base: str | Path, tokenizer: PreTrainedTokenizerFast, seed: int) -> StepScorer:
    """The base with a fresh head that scores steps. Raises UserError for a base that is no LM."""
    backbone = pretrained(AutoModelForCausalLM, base)
    fit_vocabulary(backbone, tokenizer)
    head = _head(backbone)
    start_head(head, seed)
    with torch.no_grad():
        head.weight[:, -FEATURES:] = 0.0
    return StepScorer(backbone, head)


def fit_likelihood(scorer: StepScorer, batches: Iterable[dict[str, torch.Tensor]]) -> None:
    """Start the head from what the LM knows already: fit its log-probability weights and its bias.

    A ridge logistic regression on the training steps with the LM frozen, by L-BFGS; the LM is tuned
    from there (linear probing, then fine-tuning: Kumar et al. 2022, arXiv 2202.10054). `batches`
    hold what `forward` takes and the soft `target`.
    """
    found, targets = [], []
    with torch.no_grad():
        for batch in batches:
            inputs = {name: tensor for name, tensor in batch.items() if name != "target"}
            found.append(scorer.features(**inputs)[:, -FEATURES:].double())
            targets.append(batch["target"].double())
    features, target = torch.cat(found), torch.cat(targets)
    weights = torch.zeros(FEATURES + 1, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        logits = features @ weights[:-1] + weights[-1]
        value = binary_cross_entropy_with_logits(logits, target) + RIDGE * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scorer.head.weight[0, -FEATURES:] = weights[:-1].float()
        scorer.head.bias.copy_(weights[-1:].float())


def save_step_model(scorer: StepScorer, folder: Path) -> None:
    """Write LM, head and the head's config; the tokenizer is saved by its own method."""
    scorer.backbone.save_pretrained(folder)
    weights = {name: p.detach().cpu().contiguous() for name, p in scorer.head.named_parameters()}
    save_file(weights, folder / HEAD_FILE)
    config = {
        "format": HEAD_FORMAT,
        "head": "linear",
        "reads": "hidden state of each step's last token, then log-probabilities: sum and minimum "
        "over the step, sum and minimum over the answer up to its end",
    }
    (folder / HEAD_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_step_model(folder: str | Path) -> StepScorer:
    """Read what `save_step_model` wrote. Raises UserError for another or a newer format."""
    path = model_folder(folder)
    if not (path / HEAD_CONFIG).is_file() or not (path / HEAD_FILE).is_file():
        raise UserError(f"{path}: no step model here ({HEAD_CONFIG} or {HEAD_FILE} is missing)")
    found = json.loads((path / HEAD_CONFIG).read_text(encoding="utf-8")).get("format")
    if found != HEAD_FORMAT:
        raise UserError(f"{path}: step head format {found}, this Prefinery reads {HEAD_FORMAT}")
    backbone = pretrained(AutoModelForCausalLM, path)
    head = _head(backbone)
    head.load_state_dict(load_file(path / HEAD_FILE))
    return StepScorer(backbone, head)


def _head(backbone: PreTrainedModel) -> nn.Linear:
    return nn.Linear(backbone.config.get_text_config().hidden_size + FEATURES, 1)
