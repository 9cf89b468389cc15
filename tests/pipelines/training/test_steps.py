import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from pipelines.training.config import StepsConfig
from pipelines.training.model import load_tokenizer
from pipelines.training.scoring import StepModel
from pipelines.training.step_model import load_step_model, new_step_model
from pipelines.training.steps import train_steps
from schemas.errors import UserError
from schemas.records import StepExample
from tests.pipelines.training.tiny import ask, step_example


def config(base: Path, **changes: object) -> StepsConfig:
    settings = {"base": str(base), "epochs": 25, "batch_size": 4, "learning_rate": 5e-3}
    return StepsConfig.model_validate({**settings, "max_length": 64, "threads": 1, **changes})


@pytest.fixture(scope="module")
def trained(base: Path, examples: pa.Table, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("steps") / "model"
    return out, train_steps(config(base), examples, examples, out, 4)


def test_it_learns_soft_values_and_hard_labels(trained, examples: pa.Table):
    out, done = trained
    assert done.figures["rows"] == 12 and done.figures["steps"] == 24
    assert done.figures["validation_brier"] < 0.02
    even, odd = StepModel.load(out).score(
        [(ask("4+3?"), ("4+3=7\n", "#7")), (ask("5+3?"), ("5+3=8\n", "#9"))]
    )
    assert even == pytest.approx([1.0, 0.9], abs=0.15)
    assert odd == pytest.approx([1.0, 0.1], abs=0.15)


def test_every_weight_moved_and_the_folder_holds_nothing_pickled(trained, base: Path):
    out, _ = trained
    before = dict(new_step_model(base, load_tokenizer(base), 4).named_parameters())
    for name, weight in load_step_model(out).named_parameters():
        assert not torch.equal(weight, before[name]), name
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "head.safetensors",
        "model.safetensors",
        "step_head.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert '- method: `["test"]`' in (out / "README.md").read_text()


def test_unlabelled_steps_teach_nothing(base: Path, tmp_path: Path):
    """Bit by bit the same weights, whatever an unlabelled last step says."""
    weights = []
    for name, last, labels in (("a", "2", (1, -100)), ("b", "7", (1, -100)), ("c", "2", (1, 0))):
        table = StepExample.to_table([step_example("p", ("1\n", last), labels)])
        done = train_steps(config(base, epochs=2), table, None, tmp_path / name, 0)
        assert done.figures["steps"] == (2 if name == "c" else 1)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_the_same_seed_gives_the_same_bits(base: Path, examples: pa.Table, tmp_path: Path):
    digests = []
    for name in ("a", "b"):
        train_steps(config(base, epochs=1), examples, None, tmp_path / name, 1)
        files = ("model.safetensors", "head.safetensors")
        digests.append(
            [hashlib.sha256((tmp_path / name / f).read_bytes()).hexdigest() for f in files]
        )
    assert digests[0] == digests[1]


def test_every_target_has_its_own_optimum(base: Path, tmp_path: Path):
    table = StepExample.to_table([step_example("p", ("1",), (1,), (0.25,), (0.6,))])
    found = {}
    for target in ("value", "sound", "label"):
        out = tmp_path / target
        train_steps(config(base, epochs=80, batch_size=1, target=target), table, None, out, 0)
        found[target] = StepModel.load(out).score([(ask("p"), ("1",))])[0][0]
    assert found["value"] == pytest.approx(0.25, abs=0.02)
    assert found["sound"] == pytest.approx(0.6, abs=0.02)
    assert found["label"] > 0.9


def test_rows_without_labels_are_rejected_and_an_empty_rest_is_an_error(base: Path, tmp_path: Path):
    bare = step_example("p", ("1",), (-100,))
    good = step_example("p", ("1",), (1,))
    done = train_steps(
        config(base, epochs=1), StepExample.to_table([bare, good]), None, tmp_path, 0
    )
    assert [(r.unit, r.stage, r.code) for r in done.rejects] == [
        (bare.id, "train_steps", "no_labels")
    ]
    with pytest.raises(UserError, match=r"1 rows given, all rejected \(no_labels\)"):
        train_steps(config(base), StepExample.to_table([bare]), None, tmp_path / "x", 0)
