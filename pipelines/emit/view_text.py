"""The views of the step labels in words: their names, what they hold and leave out, how to load them."""

from __future__ import annotations

from typing import Literal, get_args

StepView = Literal["trl", "trl_int", "soft", "processbench", "chat", "siblings"]
VIEWS: tuple[StepView, ...] = get_args(StepView)


def folder(view: StepView) -> str:
    """The configuration's name, and its folder's."""
    return f"steps_{view}"


REASONS = {
    "unlabelled_start": "its first step is not labelled",
    "no_label": "no step is labelled",
    "no_value": "no step has a value or a P(sound)",
    "unresolved": "the labelling method did not reach its goal",
    "unlabelled_before_error": "a step before the first error, or any where there is none, is not "
    "labelled",
    "no_final_answer": "its final answer could not be checked",
    "error_not_found": "its final answer is wrong, and no step is labelled wrong",
}
"""Why a view leaves out a row of `steps`; the reject's code is `VIEW_REASON`."""

HOLDS: dict[StepView, str] = {
    "trl": "the step labels in TRL's stepwise format, labels as booleans",
    "trl_int": "the same over whole solutions, labels as integers",
    "soft": "the same over whole solutions, labels as chances",
    "processbench": "the step labels in the columns of Qwen/ProcessBench",
    "chat": "the step labels as conversations, each step answered by + or -",
    "siblings": "two steps after the same prefix, as a preference",
}

MEANS: dict[StepView, str] = {
    "trl": "`prompt` is text and the `completions` joined are the solution's beginning. A boolean "
    "cannot say “not labelled”: a solution is cut after its first wrong step and before its first "
    "step without a label.",
    "trl_int": "`labels` are 1 (right), 0 (wrong) and -100 (teaches nothing): after the first wrong "
    "step, and where a step is not labelled. The `completions` joined are the solution.",
    "soft": "`labels` are values, the estimated chance that the policy ends right after the step; "
    "`sound` is the probability that no step so far is wrong. Null where not known. The "
    "`completions` joined are the solution.",
    "processbench": "`label` is the index of the first wrong step, -1 where there is none; only "
    "solutions where the labelling method settled that, with a checked final answer, are held. "
    "Steps are stripped of white space around them. People did not check these labels: this is "
    "training data, not a benchmark.",
    "chat": "The user's turns are the prompt with the first step, then a step each; the assistant "
    "answers `+` to a right and `-` to a wrong one. A conversation ends after its first `-` and "
    "before its first step without a label. Steps are stripped of white space around them.",
    "siblings": "Pairs of a tree search: both answers begin with the same `prefix` and differ in "
    "their last step. `probability` is that of the chosen step having the higher value, `margin` "
    "the difference of both values.",
}

_TRL = """\
from trl.experimental.prm import PRMConfig, PRMTrainer  # in the TRL releases that have it

# completions keep their own separators
args = PRMConfig(output_dir="prm", step_separator="")
PRMTrainer(model, args, train_dataset=rows, processing_class=tokenizer).train()"""

USES: dict[StepView, str] = {
    "trl": _TRL,
    "trl_int": _TRL,
    "soft": 'targets = [[p for p in row if p is not None] for row in rows["labels"]]',
    "processbench": 'wrong = rows.filter(lambda row: row["label"] >= 0)',
    "chat": """\
from trl import SFTConfig, SFTTrainer

args = SFTConfig(output_dir="prm", assistant_only_loss=True)
SFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer).train()""",
    "siblings": """\
from trl import DPOConfig, DPOTrainer

args = DPOConfig(output_dir="policy")
DPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer).train()""",
}
"""What follows `rows = load_dataset(...)`; `model` and `tokenizer` are the reader's."""
