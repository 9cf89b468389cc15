import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.training import config as module
from pipelines.training.config import RewardConfig, StepsConfig, model_folder, require_training
from schemas.errors import MissingExtra, UserError


def test_importing_for_a_plan_loads_no_torch():
    code = (
        "import sys, pipelines.training.config, pipelines.training.reward, pipelines.training.steps,"
        " pipelines.training.scoring, pipelines.evaluation.evaluate;"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_field_is_documented():
    for kind in (RewardConfig, StepsConfig):
        assert all(info.description for info in kind.model_fields.values())


def test_unknown_and_out_of_range_settings_are_refused():
    for wrong in ({"learning_rat": 0.1}, {"learning_rate": 0.0}, {"warmup_share": 1.0}):
        with pytest.raises(ValidationError):
            RewardConfig.model_validate({"base": "x", **wrong})


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"no model here \(config.json is missing\)"):
        model_folder(tmp_path)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "accelerate" else name)
    with pytest.raises(MissingExtra, match=r"accelerate is not installed.*prefinery\[train\]"):
        require_training()
