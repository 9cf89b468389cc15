from pathlib import Path

import pyarrow as pa
import pytest

from schemas.records import Preference, StepExample
from tests.pipelines.training.tiny import preference, step_example, write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def pairs() -> pa.Table:
    """Sums: the chosen answer is right, the rejected one is 1 too high; lengths differ."""
    rows = []
    for a in range(2, 12):
        for b in (3, 7, 40):
            rows.append(preference(f"{a}+{b}?", f"{a}+{b}={a + b}", f"{a}+{b}={a + b + 1}", 0.9))
    return Preference.to_table(rows)


@pytest.fixture(scope="session")
def examples() -> pa.Table:
    rows = []
    for a in range(2, 14):
        wrong = a % 2
        second = f"#{a + 3 + wrong}"
        rows.append(
            step_example(
                f"{a}+3?", (f"{a}+3={a + 3}\n", second), (1, 1 - wrong), (None, 0.9 - 0.8 * wrong)
            )
        )
    return StepExample.to_table(rows)
