"""The whole audit: finds planted flips, copies, contradictions, cycles and leaks, and adds up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.audit.audit import Audit, audit, summary, table
from pipelines.audit.config import AuditConfig
from schemas.errors import MissingExtra, UserError
from tests.pipelines.audit.made import EMBED, embed, preferences, write


def run(tmp_path: Path, *datasets: Path, **more) -> Audit:
    config = AuditConfig(datasets=tuple(map(str, datasets)), model="none", **more)
    return audit(config, tmp_path / "work", embed=EMBED)


def rows_of(*sides: tuple[str, str, str]) -> list[dict[str, str]]:
    return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in sides]


def names(found: Audit, row: int) -> set[str]:
    return {r for r in found.reasons[row] if not r.startswith("judge") and r != "likely_wrong"}


@pytest.fixture(scope="module")
def flipped(tmp_path_factory) -> tuple[Audit, np.ndarray]:
    place = tmp_path_factory.mktemp("flipped")
    rows, wrong = preferences(240, 0.15)
    return run(place, write(place / "train.jsonl", rows)), wrong


def test_planted_flips_are_the_least_probable_and_are_dropped(flipped) -> None:
    found, wrong = flipped
    assert found.probability[wrong].max() < 0.5 < found.probability[~wrong].min()
    assert [d == "drop" for d in found.decisions] == wrong.tolist()
    assert found.judged.noise.low <= wrong.mean() <= found.judged.noise.high
    for at in np.flatnonzero(wrong):
        assert found.reasons[at][0] == "likely_wrong" and "judge: words" in found.reasons[at]


def test_the_summary_adds_up(flipped) -> None:
    found, wrong = flipped
    told = summary(found)
    assert told["rows"] == told["pairs"] == sum(told["decisions"].values()) == 240
    assert told["likely_wrong"] == told["decisions"]["drop"] == int(wrong.sum())
    assert told["expected_wrong"] == pytest.approx((1 - found.probability).sum())
    assert told["splits"] == {"train": 240} and told["rejects"] == {}
    assert told["noise"]["rate"] == found.judged.noise.rate


def test_the_table_says_where_each_pair_stands_and_what_each_judge_adds(flipped) -> None:
    found, _ = flipped
    whole = table(found)
    assert whole["row"].to_pylist() == list(range(1, 241))
    evidence = sum(
        whole[name].to_numpy() for name in whole.column_names if name.startswith("evidence ")
    )
    rate = found.judged.noise.rate
    total = np.clip(evidence + np.log((1 - max(rate, 0.005)) / max(rate, 0.005)), -12, 12)
    np.testing.assert_allclose(whole["probability"].to_numpy(), 1 / (1 + np.exp(-total)), atol=1e-9)


def test_copies_contradictions_cycles_and_leaks(tmp_path) -> None:
    long = " ".join(f"word{at}" for at in range(40))
    train = rows_of(
        ("p one", "x a", "y b"),
        ("p one", "y b", "x a"),
        ("p two", "m", "n"),
        ("p two", "m", "n"),
        ("p three", "u", "v"),
        ("p three", "v", "w"),
        ("p three", "w", "u"),
        ("p four", long, "short"),
        ("p four", f"{long} more", "short"),
        ("p four", "short", f"{long} still more"),
        ("p five", "only", "here"),
    )
    test = rows_of(("p two", "n", "m"), ("p five", "else", "where"), ("p six", "new", "old"))
    found = run(
        tmp_path, write(tmp_path / "train.jsonl", train), write(tmp_path / "test.jsonl", test)
    )
    near = "near_contradiction"
    assert [names(found, at) for at in range(14)] == [
        {"contradiction", near},
        {"contradiction", near},
        {"contradiction", near, "leak", "prompt_leak"},
        {"contradiction", near, "duplicate", "near_duplicate", "leak", "prompt_leak"},
        {"cycle"},
        {"cycle"},
        {"cycle"},
        {near},
        {near, "near_duplicate"},
        {near},
        {"prompt_leak"},
        {"contradiction", near, "leak", "prompt_leak"},
        {"prompt_leak"},
        set(),
    ]
    assert found.probability[0] + found.probability[1] == pytest.approx(1)
    assert found.probability[2] == found.probability[3] == pytest.approx(1 - found.probability[11])
    assert "keep" not in (found.decisions[3], found.decisions[11])
    kept = [found.decisions[at] == "keep" for at in (0, 1)]
    assert sum(kept) <= 1


def test_length_bias_is_stated_with_its_interval(tmp_path) -> None:
    rows = [
        {"prompt": f"q{at}", "chosen": "a " * (9 if at % 5 else 2), "rejected": "b " * 5}
        for at in range(100)
    ]
    told = summary(run(tmp_path, write(tmp_path / "x.jsonl", rows)))["length"]
    assert told["longer_chosen"] == pytest.approx(0.8) and told["differ"] == 100
    assert 0.65 < told["low"] < 0.8 < told["high"] < 0.92


def test_a_judge_the_file_brings_is_weighed_and_people_settle_their_pairs(tmp_path) -> None:
    rng = np.random.default_rng(5)
    right = rng.random(300) > 0.2
    rows = []
    for at in range(300):
        side = 1.0 if right[at] else -1.0
        one, other = rng.integers(1e6, 1e7, 2)
        row = {"prompt": f"what {at}", "chosen": f"a{one}", "rejected": f"a{other}"}
        row["score"] = side * (0.5 + rng.random())
        row["noise"] = rng.normal()
        if at < 80:
            row["people"] = "chosen" if right[at] else "rejected"
        rows.append(row)
    path = write(tmp_path / "x.jsonl", rows)
    found = run(tmp_path, path, judges=("score", "noise"), human="people")
    weights = found.judged.weights
    assert weights["column score"] > 5 * abs(weights["column noise"])
    assert found.judged.calibrated and found.judged.people == (80, int((~right[:80]).sum()))
    assert ((found.probability > 0.5) == right).mean() > 0.97
    assert found.judged.noise.rate == pytest.approx((~right).mean(), abs=0.06)


def test_ratings_cannot_be_flipped_and_have_no_judges_beside_them(tmp_path) -> None:
    rows = [{"prompt": "q", "responses": ["a", "b"], "ratings": [1, 2], "m": 1}]
    with pytest.raises(UserError, match="read beside pairs, not beside ratings"):
        run(tmp_path, write(tmp_path / "x.jsonl", rows), judges=("m",))
    with pytest.raises(UserError, match="ratings have no side to flip; use --action drop"):
        run(tmp_path, write(tmp_path / "x.jsonl", rows), action="flip")


def test_a_stopped_audit_goes_on_and_ends_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.audit.vectors.CHUNK", 32)
    rows, _ = preferences(80, 0.1)
    path = write(tmp_path / "x.jsonl", rows)
    config = AuditConfig(datasets=(str(path),), model="none")
    whole = table(audit(config, tmp_path / "one", embed=EMBED))
    calls = 0

    def dies(texts: list[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return embed(texts)

    with pytest.raises(KeyboardInterrupt):
        audit(config, tmp_path / "two", embed=("words", dies))
    kept = sorted((tmp_path / "two").glob("*.f32"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-8])  # as a torn write would leave it
    again = 0

    def counts(texts: list[str]) -> np.ndarray:
        nonlocal again
        again += len(texts)
        return embed(texts)

    assert table(audit(config, tmp_path / "two", embed=("words", counts))).equals(whole)
    assert again < len({t for row in rows for t in row.values()})
    again = 0
    audit(config, tmp_path / "two", embed=("words", counts))
    assert again == 0
    audit(config, tmp_path / "two", embed=("another", counts))
    assert again > 0


def test_a_few_pairs_without_prompts_are_judged_all_the_same(tmp_path) -> None:
    rows = [{"chosen": "yes", "rejected": "no"}, {"chosen": "no", "rejected": "maybe"}]
    found = run(tmp_path, write(tmp_path / "x.jsonl", rows))
    assert found.folds_by_pair and np.isfinite(found.probability).all()
    assert not summary(found)["noise"]["told"]


def test_without_the_package_its_extra_is_named(tmp_path, monkeypatch) -> None:
    import sys

    rows, _ = preferences(5)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    config = AuditConfig(
        datasets=(str(write(tmp_path / "x.jsonl", rows)),), model=str(tmp_path / "model")
    )
    with pytest.raises(MissingExtra, match=r"pip install 'prefinery\[embed\]'"):
        audit(config, tmp_path / "work")
