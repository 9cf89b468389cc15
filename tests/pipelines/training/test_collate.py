from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.models import BPE

from pipelines.training.collate import (
    PairRow,
    StepRow,
    collate_pairs,
    collate_steps,
    encode_finished,
    encode_steps,
    pair_rows,
    step_rows,
)
from pipelines.training.model import load_tokenizer
from schemas.records import Message, Preference, StepExample
from tests.pipelines.training.tiny import preference, step_example, write_base

PAD, EOS = 0, 1


def ids(text: str) -> list[int]:
    """Ids of the test tokenizer, worked out by hand: newline 3, then ASCII from the space on."""
    return [3 if c == "\n" else ord(c) - 32 + 4 for c in text]


def test_collated_pairs_are_these_tensors():
    rows = [
        PairRow(np.array([5, 6, 1]), np.array([5, 1]), 0.9, 0.5),
        PairRow(np.array([7, 1]), np.array([8, 9, 10, 1]), 0.6, -1.0),
    ]
    batch = collate_pairs(rows, PAD)
    assert batch["input_ids"].tolist() == [[5, 6, 1, 0], [7, 1, 0, 0], [5, 1, 0, 0], [8, 9, 10, 1]]
    assert batch["rows"].tolist() == [0, 1, 2, 3]
    assert batch["columns"].tolist() == [2, 1, 1, 3]
    assert torch.equal(batch["probability"], torch.tensor([0.9, 0.6]))
    assert torch.equal(batch["margin"], torch.tensor([0.5, -1.0]))


def test_collated_steps_are_these_tensors():
    two, one = np.array([[1, 1, 1], [1, 2, 2]]), np.array([[0, 0, 0]])
    rows = [
        StepRow(np.array([5, 6, 7, 1]), two, np.array([1.0, 0.25], np.float32)),
        StepRow(np.array([8, 1]), one, np.array([0.0], np.float32)),
    ]
    batch = collate_steps(rows, PAD)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1], [8, 1, 0, 0]]
    assert batch["rows"].tolist() == [0, 0, 1]
    assert batch["begins"].tolist() == [1, 1, 0]
    assert batch["starts"].tolist() == [1, 2, 0]
    assert batch["columns"].tolist() == [1, 2, 0]
    assert batch["target"].tolist() == [1.0, 0.25, 0.0]


def test_a_finished_answer_is_the_template_and_ends_with_one_eos(base: Path):
    tokenizer = load_tokenizer(base)
    chat = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    assert encode_finished(tokenizer, [chat])[0].tolist() == [*ids("Q: 1+1?\nA: 2"), EOS]


@pytest.mark.parametrize("end", ["{{ eos_token + '\\n' }}", ""], ids=["newline", "no eos"])
def test_eos_is_last_whatever_the_template_writes_after_it(tmp_path: Path, end: str):
    template = "{%- for m in messages -%}{{ m['content'] }}{%- endfor -%}" + end
    tokenizer = load_tokenizer(write_base(tmp_path, template=template))
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert encode_finished(tokenizer, [chat])[0].tolist() == [*ids("ab"), EOS]


def test_spans_are_found_by_offsets_where_the_text_repeats(base: Path):
    tokenizer = load_tokenizer(base)
    steps = ["1\n", "1\n", "1"]
    found, spans = encode_steps(tokenizer, [{"role": "user", "content": "1\n1"}], steps)
    prompt = "Q: 1\n1\nA: "
    at = len(prompt)
    assert found.tolist() == [*ids(prompt + "1\n1\n1"), EOS]
    assert spans.tolist() == [[at, at, at + 1], [at, at + 2, at + 3], [at, at + 4, at + 4]]
    none = encode_steps(tokenizer, [{"role": "user", "content": "1"}], [])
    assert none[1].shape == (0, 3)


def test_a_merged_token_belongs_to_the_step_that_it_starts_in(base: Path):
    tokenizer = load_tokenizer(base)
    vocab = dict(tokenizer.get_vocab()) | {"\n2": len(tokenizer)}
    tokenizer._tokenizer.model = BPE(vocab=vocab, merges=[("\n", "2")], unk_token="<|unk|>")
    prompt = [{"role": "user", "content": ""}]
    found, spans = encode_steps(tokenizer, prompt, ["1\n", "23"])
    assert found[-4:].tolist() == [*ids("1"), vocab["\n2"], *ids("3"), EOS]
    at = len(found) - 4
    assert spans.tolist() == [[at, at, at + 1], [at, at + 2, at + 2]]
    with pytest.raises(ValueError, match="no token of its own"):
        encode_steps(tokenizer, prompt, ["1\n", "2", "3"])


def test_pairs_that_cannot_be_used_come_back_with_their_reason(base: Path):
    long = preference("long", "x" * 80, "y")
    system = preference("p", "x", "y").model_copy(
        update={"prompt": (Message(role="system", content="s"),)}
    )
    good = preference("p", "xx", "y", 0.7, 0.25)
    table = Preference.to_table([long, system, good])
    rows, rejects = pair_rows(table, load_tokenizer(base), 64, "train_reward")
    assert [(r.unit, r.stage, r.code, r.detail) for r in rejects] == [
        (table["id"][0].as_py(), "train_reward", "too_long", "92 tokens, max_length is 64"),
        (table["id"][1].as_py(), "train_reward", "bad_template", "no system turns"),
    ]
    assert rows[0].chosen.tolist() == [*ids("Q: p\nA: xx"), EOS]
    assert (rows[0].probability, rows[0].margin) == (0.7, 0.25)
    assert (len(rows[0]), rows[0].tokens) == (11, 21)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("value", {0: 0.9, 1: 0.8, 2: 0.0, 3: 0.7}),
        ("sound", {0: 1.0, 1: 0.8, 2: 0.0, 3: 0.6}),
        ("label", {0: 1.0, 2: 0.0, 3: 1.0}),
    ],
)
def test_a_steps_target_is_the_first_one_known(base: Path, target: str, expected: dict):
    example = step_example(
        "a",
        ("1\n", "2\n", "3\n", "4\n", "5"),
        (1, -100, 0, 1, -100),
        (0.9, None, None, 0.7, None),
        (None, 0.8, None, 0.6, None),
    )
    (row,), rejects = step_rows(
        StepExample.to_table([example]), load_tokenizer(base), 64, target, "train_steps"
    )
    start = len("Q: a\nA: ")
    assert row.spans[:, 2].tolist() == [start + 2 * step + (step < 4) for step in expected]
    assert row.targets.tolist() == pytest.approx(list(expected.values()))
    assert rejects == []


def test_rows_of_labels_alone_are_usable_and_those_without_a_target_say_which(base: Path):
    judged = step_example("a", ("1\n", "2"), (1, 0))
    valued = step_example("b", ("1\n", "2"), (-100, -100), (0.5, 0.5))
    table = StepExample.to_table([judged, valued])
    tokenizer = load_tokenizer(base)
    rows, rejects = step_rows(table, tokenizer, 64, "value", "train_steps")
    assert [row.targets.tolist() for row in rows] == [[1.0, 0.0], [0.5, 0.5]] and rejects == []
    for target in ("sound", "label"):
        (row,), (reject,) = step_rows(table, tokenizer, 64, target, "train_steps")
        assert row.targets.tolist() == [1.0, 0.0]
        assert (reject.unit, reject.code) == (valued.id, "no_labels")
        assert reject.detail == f"no step has a {target} to train on"


def test_step_targets_are_values_then_labels_then_none(base: Path):
    table = StepExample.to_table(
        [
            step_example("a", ("1\n", "2\n", "3\n", "4"), (1, 0, -100, 1), (None, None, None, 0.3)),
            step_example("b", ("1\n", "2"), (-100, -100)),
            step_example("c", ("1\n", ""), (1, 1)),
            step_example("d", ("1" * 90,), (1,)),
        ]
    )
    tokenizer = load_tokenizer(base)
    rows, rejects = step_rows(table, tokenizer, 64, "value", "train_steps")
    start = len("Q: a\nA: ")
    assert [r.spans[:, 2].tolist() for r in rows] == [[start + 1, start + 3, start + 6]]
    assert rows[0].targets.tolist() == pytest.approx([1.0, 0.0, 0.3])
    assert [r.code for r in rejects] == ["no_labels", "no_step_token", "too_long"]
    hard, _ = step_rows(table, tokenizer, 64, "label", "train_steps")
    assert hard[0].targets.tolist() == [1.0, 0.0, 1.0]
