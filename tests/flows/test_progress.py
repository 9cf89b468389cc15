import io

import pytest
from rich.console import Console

from flows import progress


@pytest.mark.parametrize(("total", "line"), [(40, "  rubrics: 12 of 40"), (0, "  rubrics: 12")])
def test_a_stage_of_unknown_length_shows_its_count_alone(
    total: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    out = io.StringIO()
    reporter = progress.Reporter(Console(file=out, highlight=False))
    with reporter.stage("rubrics", total) as advance:
        advance(12, 0)
    assert out.getvalue().splitlines()[0].startswith(line)
    assert (" of " in out.getvalue()) == bool(total)
