"""Step labels by every method through a whole run: plan, engines, journal, store, report, pages."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from flows import runs
from flows.session import Summary
from flows.steps_page import STOPPED
from pipelines.process import label
from pipelines.process.config import Method
from pipelines.store import Published, Store
from schemas.records import Reject, Response, Rollout, StepLabels, StepPair, Trajectory
from tests.flows.plans import STAGES, call, merged, prompt, run, scripted, write_plan

RIGHT = [
    *("3+4=7\n#7", "3+4=7\n0+7=7\n#7", "2+5=7\n7+0=7\n#7", "7-0=7\n#7", "1+6=7\n7=7\n#7", "#7"),
    *("4+3=7\n#7", "6+1=7\n#7"),
]
WRONG = ["3+4=6\n6+3=9\n#9", "#9"]


def graded(verdict: str, **more: Any) -> str:
    """A judge's reply on step 1 alone, which every solution has."""
    return json.dumps({"steps": [{"step": 1, "explanation": "so", "verdict": verdict, **more}]})


REFERENCE = [graded("right", reference=1), graded("calculation", reference=None)]
ENGINES = {
    "policy": {"replies": RIGHT + WRONG},
    "strong": {"kind": "scripted", "replies": ["#7", "#7", "#7", "#8"]},
    "judge": {"kind": "scripted", "replies": REFERENCE},
    # One reply for each of the three prompts; asked three times, a prompt may get none of its own.
    "panel": {
        "kind": "scripted",
        "replies": [*REFERENCE[:1], graded("right"), '{"explanation": "so", "step": null}'],
    },
}
BASE = scripted(engines=ENGINES, generate={"samples": 8}, process={"k": 4}, failure_limit=0.0)

CASES: dict[str, dict[str, Any]] = {
    "monte_carlo": {},
    "omega": {"omega": {"searches": 5}},
    "omega_mm": {"omega": {"searches": 5}},
    "advantage": {"prover": "strong"},
    "sorm": {},
    "reference": {"judge": "judge"},
    "ensemble": {"judge": "panel", "ensemble": {"samples": 2}},
    "tree": {"tree": {"simulations": 8}},
    "consensus": {"judge": "judge"},
    "epic": {},
    "scan": {},
    "changepoint": {"changepoint": {"pilot": 3, "max_rollouts": 12}},
}
ASKED = {
    **{method: {"policy"} for method in CASES},
    "advantage": {"prover"},
    "reference": {"judge"},
    "ensemble": {"judge"},
    "consensus": {"policy", "judge"},
}
"""Who is asked."""


@dataclass
class Labelled:
    """A run, and what its process stage published."""

    summary: Summary
    store: Store
    output: Published

    @classmethod
    def by(cls, folder: Path, plan: dict[str, Any], rows: Any = 4) -> Labelled:
        summary = run(write_plan(folder, plan, rows), folder / "store")
        store = Store.open(folder / "store")
        output = runs.load(store, "latest").output(store, "process")
        assert output is not None
        return cls(summary, store, output)

    @property
    def labels(self) -> list[StepLabels]:
        return list(StepLabels.from_table(self.output.table("step_labels")))

    @property
    def rollouts(self) -> list[Rollout]:
        return list(Rollout.from_table(self.output.table("rollouts")))

    @property
    def pairs(self) -> list[StepPair]:
        return list(StepPair.from_table(self.output.table("step_pairs")))

    @property
    def rejects(self) -> list[Reject]:
        return list(Reject.from_table(self.output.table("rejects")))

    @property
    def responses(self) -> list[Response]:
        output = runs.load(self.store, "latest").output(self.store, "generate")
        assert output is not None
        return list(Response.from_table(output.table("responses")))

    @property
    def tokens(self) -> int:
        return sum(rollout.completion_tokens for rollout in self.rollouts)

    def files(self) -> dict[str, str]:
        """SHA-256 of every file of the output, its manifest included."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.output.path.iterdir()
        }

    def content(self) -> list[tuple[Any, ...]]:
        """The rows, in an order that no shard makes."""
        tables = (self.labels, self.rollouts, self.pairs, self.rejects)
        return [tuple(sorted(row.model_dump_json() for row in rows)) for rows in tables]


def method(name: str, **changes: Any) -> dict[str, Any]:
    """A plan that labels by this method."""
    return merged(merged(BASE, {"process": {"method": name, **CASES[name]}}), changes)


def test_every_method_is_among_the_cases() -> None:
    assert list(CASES) == list(get_args(Method))


@pytest.mark.parametrize("name", CASES)
def test_a_whole_run_by_every_method(name: str, tmp_path: Path) -> None:
    limit = 1.0 if name == "ensemble" else 0.0
    plan = method(name, failure_limit=limit)
    done = Labelled.by(tmp_path, plan)
    assert (done.summary.status, done.summary.computed) == ("complete", STAGES)

    # Every response is labelled or says why not; what was asked and found fits together.
    given = [row.response_id for row in done.labels if row.response_id]
    assert sorted([*given, *(r.unit for r in done.rejects)]) == sorted(r.id for r in done.responses)
    assert len(given) > 10
    assert {row.stopped for row in done.labels} <= STOPPED.keys()
    assert all(row.method.startswith(f"{name}(") for row in done.labels)
    asked = {ask.of for row in done.labels for ask in row.asked}
    assert asked == ASKED[name]
    trajectories = Trajectory.from_table(done.output.table("trajectories"))
    split = {trajectory.id: trajectory for trajectory in trajectories}
    drawn = Counter((r.prompt_id, r.prefix_id) for r in done.rollouts)
    for row in done.labels:
        prefixes = split[row.trajectory_id].prefixes
        assert len(prefixes) == len(row.steps) + 1
        # A tree's values rest on the rollouts of all that grew from the step.
        if name != "tree":
            assert all(
                n <= drawn[row.prompt_id, own] for n, own in zip(row.n, prefixes[1:], strict=True)
            )
    assert len({(r.prompt_id, r.prefix_id, r.prover, r.draw) for r in done.rollouts}) == len(
        done.rollouts
    )
    facts = done.output.manifest.facts
    assert facts["rollouts"] == len(done.rollouts)
    assert facts["completion_tokens"] == done.tokens

    # What only some methods give.
    judged = [label for row in done.labels for label in row.judge_label if label is not None]
    assert bool(judged) == (name in ("reference", "ensemble", "consensus"))
    assert any(r.prover for r in done.rollouts) == (name == "advantage")
    assert any(a is not None for row in done.labels for a in row.advantage) == (name == "advantage")
    grown = {row.trajectory_id for row in done.labels if row.response_id is None}
    assert not grown or name in ("tree", "omega", "omega_mm")
    assert (grown and done.pairs) or name != "tree"
    codes = {row.code for row in done.rejects}
    assert codes <= {"same_text"} | {"scan": {"not_selected"}, "ensemble": {"bad_shape"}}.get(
        name, set()
    )

    # It is shown, and emitted.
    page = Path(done.summary.paths["report"])
    assert 'href="steps/index.html"' in page.read_text("utf-8")
    assert (page.parent / "steps" / "index.html").exists()
    assert list(Path(done.summary.paths["dataset"], "steps").glob("*.parquet"))

    # Once more: nothing to do. Without the output: the same bytes, and nobody is asked.
    plan_file, root = tmp_path / "plan.toml", tmp_path / "store"
    assert run(plan_file, root).computed == []
    before = done.files()
    assert sum(file.endswith(".parquet") for file in before) == 5 * 2
    shutil.rmtree(done.output.path)
    again = run(plan_file, root)
    assert (again.computed, again.asked) == (["process"], 0)
    assert done.files() == before


# --- engines: who is asked, and what makes labels stale --------------------------------------------


def test_labels_are_made_again_for_another_prover_or_judge_and_for_nobody_else(
    tmp_path: Path,
) -> None:
    def computed(plan: dict[str, Any]) -> tuple[list[str], int]:
        summary = run(write_plan(tmp_path, plan, 3), tmp_path / "store")
        return summary.computed, summary.asked

    since = STAGES[STAGES.index("process") :]
    other = {"engines": {"strong": {"replies": ["#7"]}, "judge": {"replies": REFERENCE[:1]}}}
    by_prover, by_judge = method("advantage"), method("reference")
    assert computed(by_prover)[0] == STAGES
    assert computed(merged(by_prover, {"engines": {"judge": other["engines"]["judge"]}})) == ([], 0)
    made, asked = computed(merged(by_prover, other))
    assert made == since and asked > 0
    assert computed(by_judge)[0] == since
    assert computed(merged(by_judge, {"engines": {"strong": other["engines"]["strong"]}})) == (
        [],
        0,
    )
    made, asked = computed(merged(by_judge, other))
    assert made == since and asked > 0
    assert computed(by_prover) == computed(by_judge) == ([], 0)  # what was made first is there


def test_other_words_to_the_judge_are_other_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {name: write_plan(tmp_path / name, method(name)) for name in ("sorm", "reference")}
    for name, plan in plans.items():
        assert run(plan, tmp_path / name / "store").computed == STAGES
    monkeypatch.setattr(label, "templates_digest", lambda: "other")
    assert run(plans["sorm"], tmp_path / "sorm" / "store").computed == []
    assert run(plans["reference"], tmp_path / "reference" / "store").computed[0] == "process"


def test_an_engine_may_be_policy_prover_and_judge_at_once(tmp_path: Path) -> None:
    own = Labelled.by(tmp_path, method("sorm"))
    done = Labelled.by(tmp_path, method("advantage", process={"prover": "policy"}))
    assert {r.prover for r in done.rollouts} == {True}
    # The same request is one reply, whoever it is meant for.
    known = {(r.prompt_id, r.prefix_id, r.draw): r.text for r in own.rollouts}
    after_steps = [r for r in done.rollouts if r.position]
    assert len(after_steps) > 20
    assert all(known[r.prompt_id, r.prefix_id, r.draw] == r.text for r in after_steps)
    assert done.summary.asked == 0  # those of the bare question are the responses
    plan = method("reference", process={"judge": "policy"}, failure_limit=1.0)
    judged = Labelled.by(tmp_path / "judge", plan)
    assert judged.labels == []
    assert {r.code for r in judged.rejects} == {"same_text", "not_json"}
    assert "steps" not in {p.name for p in Path(judged.summary.paths["report"]).parent.iterdir()}


def test_a_judge_that_gives_no_usable_answer_stops_the_run_and_is_asked_again(
    tmp_path: Path,
) -> None:
    ill = {"engines": {"judge": {"replies": ["I would rather not."]}}}
    plan = write_plan(tmp_path, method("reference", **ill), 3)
    root = tmp_path / "store"
    said = call("run", plan, "--root", root).refused()
    start, _, rest = said.partition(" requests got no usable answer, ")
    failed, total = map(int, start.removeprefix("process: ").split(" of "))
    assert 0 < failed < total == 2 * 8
    assert rest.startswith(f"{failed} times not_json (the reply holds no JSON object: ")
    plan.write_text(plan.read_text().replace('"failure_limit" = 0.0', '"failure_limit" = 1.0'))
    summary = call("run", plan, "--root", root, "--json").json
    assert summary["rows"]["process"]["step_labels"] == 0
    # The replies could not be read: that is no failure of the engine's, and they are kept.
    assert summary["status"] == "complete"


def test_refusals_of_judge_and_prover_are_forgotten_with_the_run(tmp_path: Path) -> None:
    for name, engine in (("reference", "judge"), ("advantage", "strong")):
        ill = {"engines": {engine: {"fail_share": 1.0}}}
        plan = write_plan(tmp_path / name, method(name, **ill), 2)
        root = tmp_path / name / "store"
        said = call("run", plan, "--root", root).refused()
        assert " refused (scripted failure); mend the engine or raise failure_limit" in said
        plan.write_text(plan.read_text().replace('"failure_limit" = 0.0', '"failure_limit" = 1.0'))
        summary = call("run", plan, "--root", root, "--json").json
        assert summary["asked"] > 0  # of the engine that failed; the policy's replies are there
        assert summary["rows"]["process"]["step_labels"] == 0


# --- the question filter ---------------------------------------------------------------------------


def test_the_filters_rollouts_are_the_responses_and_what_it_drops_is_no_failure(
    tmp_path: Path,
) -> None:
    rows = [prompt(1), prompt(2, reference="5"), prompt(3)]
    limits = {"filter": {"rollouts": 8}, "stop_at": 0}
    done = Labelled.by(tmp_path, method("sorm", process=limits), rows)
    codes = Counter(row.code for row in done.rejects)
    assert codes["too_hard"] > 0 and codes.keys() == {"too_hard", "same_text"}
    details = {row.detail for row in done.rejects if row.code == "too_hard"}
    assert details == {"0 of 8 rollouts are right"}
    of_root = [r for r in done.rollouts if r.position == 0]
    assert len(of_root) == 3 * 8
    by_draw = {(r.prompt_id, r.sample_index): r.text for r in done.responses}
    assert all(r.text == by_draw[r.prompt_id, r.draw] for r in of_root)
    assert done.summary.asked == len(done.responses) + len(done.rollouts) - len(of_root)
    page = Path(done.summary.paths["report"]).read_text("utf-8")
    assert "too_hard" in page


def test_a_run_of_which_every_question_is_filtered_out(tmp_path: Path) -> None:
    rows = [prompt(n, reference="5") for n in range(3)]
    done = Labelled.by(tmp_path, method("changepoint", process={"filter": {}}), rows)
    assert (done.summary.status, done.labels) == ("complete", [])
    assert {row.code for row in done.rejects} == {"too_hard", "same_text"}
    assert len(done.rollouts) == 3 * 32  # none of them right: nothing less settles it
    assert list(Path(done.summary.paths["dataset"], "steps").glob("*.parquet")) == []


# --- budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["monte_carlo", "omega", "tree", "changepoint"])
def test_a_budget_ends_a_run_cleanly_in_one_shard_or_two(name: str, tmp_path: Path) -> None:
    budget, questions, longest = 40, 4, 3
    settings = {"k": 8, "stop_at": 0, "budget_tokens": budget}
    hard = {"engines": {"policy": {"replies": ["3+4=7\n#7", "3+4=8\n8+0=8\n#8", "2+4=6\n#6"]}}}
    content = []
    for shard_rows in (4, 2):
        plan = method(name, process=settings, shard_rows=shard_rows, **hard)
        done = Labelled.by(tmp_path / str(shard_rows), plan, questions)
        assert done.summary.status == "complete"
        assert done.output.manifest.facts["rows"] == len(done.responses) == 32
        stopped = Counter(row.stopped for row in done.labels)
        assert stopped["budget"] > 0
        # A search may have found its first error by then; per-step rollouts are all or nothing.
        resolved = {row.resolved for row in done.labels if row.stopped == "budget"}
        assert False in resolved and (name != "monte_carlo" or resolved == {False})
        # Over by no more than a question's last slice of rollouts.
        assert budget - longest * questions < done.tokens <= budget + longest * questions
        assert {row.code for row in done.rejects} == {"same_text"}
        content.append(done.content())
        before = done.files()
        shutil.rmtree(done.output.path)
        again = run(tmp_path / str(shard_rows) / "plan.toml", done.store.root)
        assert (again.computed, again.asked, done.files()) == (["process"], 0, before)
    if name != "changepoint":  # whose priors are fitted to a shard
        assert content[0] == content[1]


def test_a_question_takes_no_more_than_its_own_budget(tmp_path: Path) -> None:
    settings = {"k": 8, "stop_at": 0, "question_tokens": 12}
    done = Labelled.by(tmp_path, method("monte_carlo", process=settings))
    each = Counter[str]()
    for rollout in done.rollouts:
        each[rollout.prompt_id] += rollout.completion_tokens
    assert len(each) == 4 and all(12 <= tokens <= 12 + 3 for tokens in each.values())
    assert Counter(row.stopped for row in done.labels)["budget"] >= 4


def test_a_larger_budget_goes_on_from_what_was_paid_for(tmp_path: Path) -> None:
    plans = [method("monte_carlo", process={"budget_tokens": budget}) for budget in (40, 120)]
    small, large = (Labelled.by(tmp_path, plan) for plan in plans)
    assert 0 < len(small.rollouts) < len(large.rollouts)
    assert large.summary.asked == len(large.rollouts) - len(small.rollouts)
    kept = {(r.prompt_id, r.prefix_id, r.draw): r.text for r in large.rollouts}
    assert all(kept[r.prompt_id, r.prefix_id, r.draw] == r.text for r in small.rollouts)


# --- plans that cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "said"),
    [
        ({"method": "reference"}, "judge: method reference needs one; name an engine"),
        ({"method": "ensemble"}, "judge: method ensemble needs one; name an engine"),
        ({"method": "consensus"}, "judge: method consensus needs one; name an engine"),
        ({"judge": "judge"}, "judge: is for methods reference, ensemble, consensus, not"),
        ({"prover": "strong"}, "prover: is for method advantage, not monte_carlo"),
        ({"omega": {}}, "omega: is for method omega or omega_mm, not monte_carlo"),
        ({"tree": {}, "method": "omega"}, "tree: is for method tree, not omega"),
        ({"changepoint": {}}, "changepoint: is for method changepoint, not monte_carlo"),
        ({"ensemble": {}}, "ensemble: is for method ensemble or consensus, not monte_carlo"),
        (
            {"method": "advantage", "prover": "x"},
            "process.prover: no engine 'x'; there are: judge, panel, policy, strong",
        ),
        (
            {"method": "consensus", "judge": "x"},
            "process.judge: no engine 'x'; there are: judge, panel, policy, strong",
        ),
        ({"method": "omegaprm"}, "process.method: input should be 'monte_carlo', 'omega', "),
        ({"omega": {"serches": 3}}, "process.omega.serches: unknown key; did you mean 'searches'?"),
        (
            {"changepoint": {"priors": {"recovry": 0.1}}},
            "process.changepoint.priors.recovry: unknown key; did you mean 'recovery'?",
        ),
        ({"budget_tokens": 0}, "process.budget_tokens: input should be greater than or equal to 1"),
    ],
)
def test_what_a_plan_cannot_say_is_refused_in_one_line(
    process: dict[str, Any], said: str, tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, merged(BASE, {"process": process}))
    for words in (("plan", "check", plan), ("run", plan, "--root", tmp_path / "store")):
        message = call(*words).refused()
        start, _, _ = message.removeprefix(f"{plan}: ").partition(said)
        assert start in ("", "process: "), message
    assert not (tmp_path / "store").exists()


def test_views_of_step_labels_need_step_labels(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(process=None, emit={"step_views": ["trl"]}))
    said = call("plan", "check", plan).refused()
    assert said == f"{plan}: emit.step_views: needs step labels; add [process]"
