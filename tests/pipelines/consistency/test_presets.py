"""The published filters, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.consistency.presets import (
    PRESETS,
    cream,
    dual_model,
    fifa,
    neighbours_wanted,
    retrieved,
    scir,
    secrets,
    secrets_flip,
    secrets_margin,
    secrets_smooth,
    skywork,
    uncertainty_weighted,
    worst_case,
)
from schemas.errors import SchemaError, UserError
from schemas.records import Decision
from schemas.table import validate


def wide(prompts: str | None = None, **judges: Any) -> pl.DataFrame:
    """A frame of pairs 0, 1, ..; one prompt a letter."""
    n = len(next(iter(judges.values())))
    columns: dict[str, Any] = {
        "pair_id": [f"{i:02}" for i in range(n)],
        "prompt_id": list(prompts or "p" * n),
    }
    return pl.DataFrame({**columns, **judges}, strict=False)


def actions(table: Any) -> list[str]:
    validate(Decision, table)
    return [str(action) for action in table["action"].to_pylist()]


TEN = [0.9, -0.9, 0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8]


def test_secrets_flips_smooths_and_keeps_by_strength() -> None:
    made = secrets(wide(x=TEN, y=TEN))
    assert actions(made) == ["keep", "flip", "keep", "soften", "soften", "soften"] + ["keep"] * 4
    assert made["reason"].to_pylist()[:4] == [
        "strength",
        "lowest_strength",
        "strength",
        "low_strength",
    ]
    assert made["target"].to_pylist()[:4] == [1.0, 0.0, 1.0, 0.9]
    assert made["probability"].to_pylist()[:4] == [1.0, 1.0, 1.0, 0.9]
    assert made["margin"].to_pylist()[:4] == pytest.approx([0.9, 0.9, 0.5, 0.1])
    assert set(made["rule"].to_pylist()) == {"secrets2-1"}


def test_parts_of_secrets() -> None:
    frame = wide(x=TEN)
    assert actions(secrets_flip(frame)).count("flip") == 1
    assert "soften" not in actions(secrets_flip(frame))
    assert actions(secrets_smooth(frame)).count("soften") == 4
    assert set(actions(secrets_margin(frame))) == {"keep"}
    assert secrets_margin(frame)["margin"].to_pylist() == pytest.approx(TEN)


def test_equal_strengths_share_a_fate_and_no_votes_no_strength() -> None:
    frame = wide(x=[0.1, 0.1, 0.5, 0.5, None])
    assert actions(secrets_flip(frame, flip=0.25)) == ["keep"] * 4 + ["drop"]
    assert actions(secrets_flip(frame, flip=0.5)) == ["flip", "flip", "keep", "keep", "drop"]
    assert secrets(frame)["reason"].to_pylist()[4] == "no_votes"


def test_a_label_of_b_turns_the_target() -> None:
    frame = wide(x=TEN, label=["b"] * 10)
    assert secrets(frame)["target"].to_pylist()[:4] == pytest.approx([0.0, 1.0, 0.0, 0.1])


def test_worst_case_asks_all() -> None:
    made = worst_case(wide(x=[0.2, -0.2, 0.9, 0.5, None], y=[0.4, -0.4, -0.1, None, None]))
    assert actions(made) == ["keep", "flip", "drop", "keep", "drop"]
    assert made["reason"].to_pylist() == [
        "surely_agree",
        "surely_disagree",
        "unsure",
        "surely_agree",
        "no_votes",
    ]


def test_uncertainty_weighted_takes_half_the_variance_off() -> None:
    # Means .1, .1, -.1; variances 0, .81, 0: .1 - .405 < 0.
    frame = wide(x=[0.1, 1.0, -0.1], y=[0.1, -0.8, -0.1])
    assert actions(uncertainty_weighted(frame)) == ["keep", "drop", "flip"]
    # .1 - .12 * .81 = .0028, .1 - .13 * .81 < 0
    assert actions(uncertainty_weighted(frame, weight=0.12))[1] == "keep"
    assert actions(uncertainty_weighted(frame, weight=0.13))[1] == "drop"


def test_cream_softens_by_the_consistency_of_rounds() -> None:
    # Prompt p: signs agree, agree, disagree: tau 1/3, C 2/3. q: disagree: C 0; one is missing.
    frame = wide(prompts="pppqq", old=[1.0, 0.5, -0.5, 0.3, None], new=[1.0, 0.5, 0.5, -0.3, 0.2])
    made = cream(frame)
    assert actions(made) == ["soften", "soften", "soften", "flip", "soften"]
    # Averaged over prompts: (2/3 + 0) / 2.
    assert made["probability"].to_pylist() == pytest.approx([1 / 3] * 5)
    assert made["target"].to_pylist()[3] == pytest.approx(2 / 3)
    each = cream(frame, per_prompt=True)["probability"].to_pylist()
    assert each == pytest.approx([2 / 3] * 3 + [0.0] * 2)
    nothing = cream(wide(old=[None, 1.0], new=[1.0, None]))
    assert actions(nothing) == ["drop", "drop"]


def test_scir_and_dual_model_ask_for_agreement() -> None:
    frame = wide(
        x=[0.2, -0.2, 0.2, 0.2, 0.0], y=[0.1, -0.3, -0.1, None, 0.1], z=[0.1, -0.1, 0.1, 0.1, 0.1]
    )
    assert actions(scir(frame)) == ["keep", "flip", "drop", "drop", "drop"]
    assert actions(scir(frame, judges=["x", "z"])) == ["keep", "flip", "keep", "keep", "drop"]
    assert actions(dual_model(frame)) == ["keep", "drop", "drop", "drop", "drop"]
    with pytest.raises(UserError, match="needs 2 judges"):
        dual_model(wide(x=[1.0]))
    with pytest.raises(UserError, match="no judge"):
        scir(frame, judges=["w"])


def test_skywork_keeps_what_gold_and_another_back_and_recycles_what_all_reject() -> None:
    frame = wide(
        gold=[0.1, 0.1, 0.1, -0.1, -0.1, -0.1, None, -0.1],
        best=[0.2, -0.2, -0.2, -0.2, -0.2, None, 0.2, None],
        llm=[-0.9, 0.5, -0.5, -0.5, 0.5, -0.2, 0.2, None],
    )
    made = skywork(frame)
    assert actions(made) == ["keep", "keep", "drop", "flip", "drop", "flip", "drop", "drop"]
    assert made["reason"].to_pylist()[6] == "no_gold_vote"


def test_retrieval_adapts_to_the_error() -> None:
    wanted = [neighbours_wanted(p) for p in (0.0, 0.5, 0.51, 0.75, 0.9, 0.99, 1.0)]
    assert wanted == [8, 8, 4, 2, 1, 1, 0]
    pool = np.array([[1, 0], [0, 1], [1, 1], [-1, 0]], np.float32)
    asked = np.array([[2, 0.1], [0, -1]], np.float32)
    assert retrieved(asked, [0.75, 0.3], pool) == [[0, 2], [0, 3, 2, 1]]


def test_fifa_takes_margin_quality_and_rarity_together() -> None:
    frame = wide(x=[0.4, 0.3, 0.2, 0.1])
    assert actions(fifa(frame)) == ["keep", "keep", "drop", "drop"]
    graded = frame.with_columns(quality=pl.Series([0.0, 0.0, 0.0, 10.0]))
    # Standardised margins 1.34, .45, -.45, -1.34; qualities -.58 (thrice), 1.73.
    assert actions(fifa(graded, quality_weight=1.0)) == ["keep", "drop", "drop", "keep"]
    far = np.array([[0, 0], [0.1, 0], [5, 5], [0, 0.1]], np.float32)
    made = fifa(frame, embeddings=far, diversity_weight=2.0, neighbour=1, share=0.25)
    assert actions(made) == ["drop", "drop", "keep", "drop"]


def test_prof_balances_and_drops_what_is_inconsistent() -> None:
    frame = pl.DataFrame(
        {
            "pair_id": list("abcdefgh"),
            "prompt_id": ["p"] * 6 + ["q"] * 2,
            "right": [True, True, True, True, False, False, True, False],
            "score": [0.9, 0.2, 0.5, 0.7, 0.8, 0.1, 0.3, None],
        }
    )
    # Four right and two wrong, four stay: two right ones of the least process leave.
    made = PRESETS["prof"](frame, keep=4)
    assert actions(made) == ["keep", "drop", "drop", "keep", "keep", "keep", "keep", "drop"]
    assert made["reason"].to_pylist()[1:] == [
        "process_against_outcome",
        "process_against_outcome",
        *["consistent"] * 4,
        "no_process_value",
    ]
    # Two stay: three right ones leave and the wrong one that looks soundest.
    assert actions(PRESETS["prof"](frame, keep=2))[:6] == [
        *("keep", "drop", "drop", "drop"),
        *("drop", "keep"),
    ]


def test_prof_of_one_kind_alone() -> None:
    frame = pl.DataFrame(
        {
            "pair_id": list("abc"),
            "prompt_id": ["p"] * 3,
            "right": [False] * 3,
            "score": [0.3, 0.1, 0.2],
        }
    )
    assert actions(PRESETS["prof"](frame, keep=1)) == ["drop", "keep", "drop"]
    assert actions(PRESETS["prof"](frame, keep=9)) == ["keep"] * 3


def test_pf_ppo_chooses_the_region_the_reward_can_be_relied_on() -> None:
    frame = pl.DataFrame(
        {
            "pair_id": [f"{p}{i}" for p in "pqr" for i in range(4)],
            "prompt_id": [p for p in "pqr" for _ in range(4)],
            "reward": [4.0, 3.0, 2.0, 1.0] * 2 + [5.0, 3.0, 2.0, 0.0],
            # The middle is noise; best and worst tell the truth.
            "score": [4.0, 0.0, 5.0, 1.0, 5.0, 5.0, 0.0, 1.0, 4.0, 0.0, 5.0, 0.0],
        }
    )
    made = PRESETS["pf_ppo"](frame)
    assert set(made["rule"].to_pylist()) == {"pf_ppo_best_worst-1"}
    worst = PRESETS["pf_ppo"](frame, strategy="best_worst")
    assert actions(worst) == ["keep", "drop", "drop", "keep"] * 3
    assert (
        actions(PRESETS["pf_ppo"](frame, strategy="best")) == ["keep", "drop", "drop", "drop"] * 3
    )
    random = actions(PRESETS["pf_ppo"](frame, strategy="best_random"))
    assert [random[i : i + 4].count("keep") for i in (0, 4, 8)] == [2, 2, 2]
    with pytest.raises(UserError, match="too few"):
        PRESETS["pf_ppo"](frame.with_columns(score=pl.lit(None, pl.Float64)))


def test_pf_ppo_r_squared_by_hand() -> None:
    from pipelines.consistency.presets_process import r_squared

    frame = pl.DataFrame(
        {
            "pair_id": list("abcd"),
            "prompt_id": ["p", "p", "q", "q"],
            "reward": [3.0, 1.0, 2.0, 0.0],
            "score": [3.0, 0.0, 0.0, 1.0],
        }
    )
    # x - mean: 1.5, -.5, .5, -1.5; y - mean: 2, -1, -1, 0: Sxy 3, Sxx 5, Syy 6.
    found = r_squared(frame)
    assert found["best_worst"] == pytest.approx(9 / 30)
    assert found["best"] is None


@pytest.mark.parametrize("name", [n for n in PRESETS if n not in ("prof", "pf_ppo")])
def test_every_preset_gives_a_row_a_pair_whatever_is_missing(name: str) -> None:
    rng = np.random.default_rng(3)
    votes = {j: np.where(rng.random(40) < 0.3, np.nan, rng.uniform(-1, 1, 40)) for j in "xyz"}
    frame = wide(**votes)
    made = PRESETS[name](frame)
    validate(Decision, made)
    assert made["pair_id"].to_pylist() == frame["pair_id"].to_list()
    assert all(p == 0.5 for p, a in zip(
        made["probability"].to_pylist(), made["action"].to_pylist(), strict=True) if a == "drop"
    )  # fmt: skip
    assert PRESETS[name](frame.to_arrow()).equals(made)
    assert PRESETS[name](frame.clear()).num_rows == 0


def test_a_missing_column_is_named() -> None:
    with pytest.raises(SchemaError, match="prompt_id"):
        worst_case(pl.DataFrame({"pair_id": ["a"], "x": [0.1]}))
    with pytest.raises(SchemaError, match="score"):
        PRESETS["prof"](wide(right=[True]))
