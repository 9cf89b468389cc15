import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement import Agreement, Level, krippendorff
from schemas.errors import SchemaError

# Krippendorff (2011), section C: four observers, twelve units, values missing.
PUBLISHED = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
}


def table(rows: list[tuple[str, str, float | None]]) -> pa.Table:
    units, judges, values = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "unit": pa.array(units, pa.string()),
            "judge": pa.array(judges, pa.string()),
            "value": pa.array(values, pa.float64()),
        }
    )


def published() -> pa.Table:
    return table(
        [(f"u{i:02}", judge, v) for judge, row in PUBLISHED.items() for i, v in enumerate(row)]
    )


@pytest.mark.parametrize(
    "level, expected", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_published_example(level: Level, expected: float) -> None:
    found = krippendorff(published(), level)
    assert found.alpha == pytest.approx(expected, abs=5e-4)
    assert found.low is not None and found.high is not None
    assert found.low < expected < found.high <= 1
    # A unit that one person answered says nothing.
    assert (found.units, found.votes, found.people) == (11, 40, 4)


answers = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 4), st.integers(-1, 1)), min_size=4, max_size=40
)


@settings(deadline=None, max_examples=60)
@given(answers)
def test_nominal_is_that_of_crowdkit(given_answers: list[tuple[int, int, int]]) -> None:
    pd = pytest.importorskip("pandas")
    metrics = pytest.importorskip("crowdkit.metrics.data")
    last = {(f"u{u}", f"j{j}"): float(v) for u, j, v in given_answers}
    several = {u for u, j in last if sum(other == u for other, _ in last) > 1}
    rows = [(u, j, v) for (u, j), v in last.items() if u in several]
    found = krippendorff(table([(u, j, v) for (u, j), v in last.items()]), "nominal", replicates=0)
    if len({v for *_, v in rows}) < 2:
        assert found.alpha is None
        return
    frame = pd.DataFrame(rows, columns=["task", "worker", "label"])
    assert found.alpha == pytest.approx(metrics.alpha_krippendorff(frame), abs=1e-9)


def test_perfect_agreement_is_one_and_disagreement_is_below_nought() -> None:
    agree = table([(f"u{i}", j, float(i % 2)) for i in range(20) for j in "ab"])
    assert krippendorff(agree, "ordinal").alpha == 1.0
    differ = table([(f"u{i}", j, float(j == "a")) for i in range(20) for j in "ab"])
    alpha = krippendorff(differ, "nominal").alpha
    assert alpha is not None and alpha < 0


def test_nothing_to_tell_is_none() -> None:
    for rows in ([], [("u", "a", 1.0)], [("u", "a", 1.0), ("u", "b", 1.0)], [("u", "a", None)]):
        found = krippendorff(table(rows), "interval")
        assert (found.alpha, found.low, found.high) == (None, None, None)


def test_a_fine_scale_is_told_apart_by_steps_and_takes_no_memory() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(-1, 1, 3000)
    said = np.clip(truth + rng.normal(0, 0.2, (2, 3000)), -1, 1)
    rows = [(f"u{i}", f"j{j}", float(said[j, i])) for j in range(2) for i in range(3000)]
    found = krippendorff(table(rows), "interval", replicates=50)
    # Alpha of the values as they are: 1 - observed over expected squared difference.
    exact = 1 - ((said[0] - said[1]) ** 2).mean() / (2 * said.var(ddof=1))
    assert found.alpha == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize(
    ("alpha", "units", "meaning"),
    [
        (0.8, 9, "reliable"),
        (0.799, 9, "fit for tentative conclusions"),
        (0.667, 9, "fit for tentative conclusions"),
        (0.5, 9, "better than chance, but too low to draw conclusions from single labels"),
        (0.0, 9, "no better than chance"),
        (None, 9, "not known: there is one answer throughout, and nothing to tell apart by chance"),
        (None, 0, "not known: nothing was answered by two people"),
    ],
)
def test_alpha_in_words(alpha: float | None, units: int, meaning: str) -> None:
    assert Agreement("nominal", alpha, None, None, units, 2 * units, 2).meaning == meaning


def test_an_interval_that_holds_nought_is_said() -> None:
    few = Agreement("nominal", 0.06, -0.3, 0.4, 6, 12, 3)
    assert few.meaning == "cannot be told from chance by so few answers"


def test_a_person_counted_twice_is_an_error() -> None:
    with pytest.raises(SchemaError, match="a stands twice on u"):
        krippendorff(table([("u", "a", 1.0), ("u", "a", 0.0)]), "nominal")


def test_the_interval_is_the_same_each_time_and_covers() -> None:
    first, again = krippendorff(published(), "ordinal"), krippendorff(published(), "ordinal")
    assert first == again
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        truth = rng.integers(0, 2, 80)
        said = np.where(rng.random((3, 80)) < 0.8, truth, 1 - truth)
        rows = [(f"u{i}", f"j{j}", float(said[j, i])) for j in range(3) for i in range(80)]
        found = krippendorff(table(rows), "nominal", seed=seed, replicates=200)
        assert found.low is not None and found.high is not None
        held += found.low <= 0.36 <= found.high  # (1 - 2 * .2)^2
    assert held >= 50
