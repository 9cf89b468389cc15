"""The harness counts what is there, and gives methods what they ask for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.process_labels import __main__ as command
from benchmarks.process_labels import grid, ours, rivals, table
from benchmarks.process_labels.chain import Cell
from benchmarks.process_labels.driving import World, drive, fresh
from benchmarks.process_labels.frontier import HEIGHT, Spot, frontier
from benchmarks.process_labels.judge import NoisyJudge
from benchmarks.process_labels.metrics import AT, COLUMNS, READINGS, Bootstrap, forced, sums
from pipelines.process.config import ProcessConfig
from pipelines.process.methods import monte_carlo, reference
from pipelines.process.methods.changepoint import Changepoint
from pipelines.process.search import Finding, Found, Question, Step

# --- driving -------------------------------------------------------------------------------------


def test_a_book_holds_what_was_asked_and_the_budget_ends_a_search() -> None:
    world = World(Cell(8, 0.3, 0.05))
    (question,) = world.questions(1, wrong=1)
    config = ProcessConfig(engine="policy", k=8, stop_at=0)
    whole = fresh(question)
    found = drive(whole, monte_carlo.search(whole, config), world.draw).found[0]
    assert [step.n for step in found.steps] == [8] * 7 + [0]
    assert whole.book.spent == sum(step.tokens for step in found.steps)
    (solution,) = question.solutions
    assert whole.book.positions == {solution.prefix(t).text: t for t in range(1, 8)}
    budget = whole.book.spent // 2
    half = fresh(question)
    ended = drive(half, monte_carlo.search(half, config), world.draw, budget=budget).found[0]
    assert (ended.stopped, ended.resolved) == ("budget", False)
    longest = max(d.tokens for drawn in whole.book.draws.values() for d in drawn)
    assert budget <= half.book.spent < budget + longest


def test_questions_hold_wrong_solutions_that_are_truly_wrong() -> None:
    world = World(Cell(8, 0.7, 0.15, monotone=False), seed=3)
    questions = world.questions(20)
    assert len({q.prompt.id for q in questions}) == 20
    for question in questions:
        assert 1 <= len(question.solutions) <= 2
        assert (question.responses.n, question.responses.counted) == (8, 8)
        for solution in question.solutions:
            t = solution.trajectory
            assert (solution.final_right, solution.steps, solution.last) == (False, 8, 7)
            ends = zip(t.starts, t.ends, strict=True)
            assert "".join(solution.text[a:b] for a, b in ends) == solution.text
            assert t.token_ends[-1] == solution.tokens == len(solution.text.split())
            assert not world.is_sound(question, solution.text)
            expected = [question.prefix_id(solution.prefix(p).text) for p in range(9)]
            assert list(t.prefixes) == expected
    right = world.questions(5, wrong=0, right=1)
    assert all(s.final_right for q in right for s in q.solutions)


# --- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("half_root", [True, False])
def test_binary_search_finds_the_first_error_with_many_rollouts(half_root: bool) -> None:
    world = World(Cell(8, 0.7, 0.0))
    for question in world.questions(15):
        asked = fresh(question)
        finding = drive(asked, rivals.binary(asked, 64, half_root), world.draw)
        for found in finding.found:
            error = world.of(question).state(found.solution.text).first_error
            assert found.first_error == error
            assert [step.label for step in found.steps[:error]] == ["right"] * (error or 0)
            sampled = sum(step.n > 0 for step in found.steps)
            assert sampled <= 3  # of 8 places, log2


def test_half_of_the_root_resists_recovery_where_any_right_does_not() -> None:
    world = World(Cell(8, 0.7, 0.15))
    rows = {"any": [], "half": []}  # type: dict[str, list[np.ndarray]]
    for question in world.questions(15):
        asked = fresh(question)
        config = ProcessConfig(engine="policy", k=64, stop_at=0)
        rows["any"].append(
            sums(world, asked, drive(asked, monte_carlo.search(asked, config), world.draw))
        )
        asked = fresh(question)
        rows["half"].append(sums(world, asked, drive(asked, rivals.every(asked, 64), world.draw)))
    share = {name: READINGS["step_accuracy"](np.sum(own, axis=0)) for name, own in rows.items()}
    assert share["half"] > 0.9
    assert share["any"] < 0.75


def test_a_judge_without_errors_knows_the_truth_and_a_noisy_one_errs_at_its_rates() -> None:
    world = World(Cell(16, 0.3, 0.0))
    config = ProcessConfig(engine="policy", method="reference", judge="judge")

    def hits(judge: NoisyJudge) -> dict[bool, float]:
        calls: dict[bool, list[bool]] = {True: [], False: []}
        for question in world.questions(30):
            asked = fresh(question)
            found = drive(asked, reference.search(asked, config), world.draw, judge=judge).found
            for own in found:
                for t, step in enumerate(own.steps):
                    true = world.is_sound(question, own.solution.prefix(t + 1).text)
                    calls[true].append((step.judge_label == "right") == true)
        return {true: float(np.mean(own)) for true, own in calls.items()}

    assert hits(NoisyJudge(world, 1.0, 1.0)) == {True: 1.0, False: 1.0}
    noisy = hits(NoisyJudge(world, 0.7, 0.9))
    assert noisy[True] == pytest.approx(0.9, abs=0.06)
    assert noisy[False] == pytest.approx(0.7, abs=0.06)


# --- metrics -------------------------------------------------------------------------------------


def given_labels(question: Question, *steps: Step, resolved: bool = True) -> Finding:
    solution = question.solutions[0]
    assert len(steps) == solution.steps
    return Finding((Found(solution, steps, "complete", resolved),))


def test_both_readings_of_step_accuracy_by_hand() -> None:
    world = World(Cell(8, 0.3, 0.05), seed=1)
    question = next(
        q
        for q in world.questions(40, wrong=1)
        if world.of(q).state(q.solutions[0].text).first_error == 4
    )
    asked = fresh(question)
    asked.book.spent = 100
    solution = question.solutions[0]
    v = world.value(question, solution.prefix(2).text)
    finding = given_labels(
        asked,
        Step(label="right", source="rollouts", sound=0.8),
        Step(label="wrong", source="rollouts", value=v, low=v, high=1.0),  # false
        Step(sound=0.6),  # no label; forced: right
        Step(sound=0.4),  # no label; forced: wrong, false
        Step(low=0.9, high=1.0, value=0.95),  # no label; forced: wrong; V = .05 is not covered
        Step(),
        Step(label="right", source="inferred"),  # false
        Step(label="wrong", source="answer", value=0.0, low=0.0, high=0.0),
        resolved=False,
    )
    assert forced(finding.found[0]) == [True, False, True, False, False, False, True, False]
    row = sums(world, asked, finding)
    seen = {name: float(of(row)) for name, of in READINGS.items()}
    assert seen["step_accuracy"] == 5 / 8
    assert (seen["step_accuracy_labelled"], seen["share_labelled"]) == (2 / 4, 4 / 8)
    assert seen["first_error_accuracy"] == 0
    assert seen["tokens_per_solution"] == 100
    assert seen["tokens_per_right_label"] == 100  # one: the last is known from the answer
    assert (seen["coverage_90"], seen["unresolved_share"]) == (0.5, 1.0)
    # P(sound): .8, v (soft value), .6, .4 on sound steps; .95, 1 (hard label) on unsound ones.
    squares = [0.2**2, (1 - v) ** 2, 0.4**2, 0.6**2, 0.95**2, 1.0]
    assert seen["brier"] == pytest.approx(sum(squares) / 6)
    assert row[AT["probabilities"]] == 6


def test_coverage_of_values_that_are_0_exactly_stands_apart() -> None:
    """Without recovery an unsound prefix is worth 0, and every interval from 0 on covers that."""
    world = World(Cell(8, 0.3, 0.0), seed=1)
    question = next(
        q
        for q in world.questions(40, wrong=1)
        if world.of(q).state(q.solutions[0].text).first_error == 2
    )
    first, second = (world.value(question, question.solutions[0].prefix(t).text) for t in (1, 2))
    assert 0 < first < second < 1
    finding = given_labels(
        question,
        Step(label="right", low=first, high=1.0, value=first),
        Step(label="right", low=0.0, high=first, value=first),  # not covered
        Step(label="wrong", low=0.0, high=0.0, value=0.0),
        Step(label="wrong", low=0.0, high=0.1, value=0.0),
        Step(low=0.1, high=0.2, value=0.1),  # not covered
        *(Step(),) * 2,
        Step(label="wrong", source="answer", value=0.0, low=0.0, high=0.0),
    )
    row = sums(world, question, finding)
    seen = {name: float(of(row)) for name, of in READINGS.items()}
    assert seen["coverage_90"] == 3 / 5
    assert (seen["coverage_90_inside"], seen["intervals_inside_share"]) == (1 / 2, 2 / 5)
    assert seen["coverage_90_labelled_right"] == 1 / 2


def test_labels_of_grown_paths_and_passed_over_solutions() -> None:
    world = World(Cell(8, 0.3, 0.05), seed=1)
    (question,) = world.questions(1, wrong=1)
    grown = World(Cell(8, 0.3, 0.05), seed=1)._question(world.of(question).chain, 0, 1).solutions
    assert grown  # the path of another response: sound, and not given
    steps = (Step(label="right", source="rollouts"),) * 8
    asked = fresh(question)
    with pytest.raises(ValueError, match="1 given solutions got no labels"):
        sums(world, asked, Finding((Found(grown[0], steps, "complete"),)))
    reject = _reject(question)
    # Two paths with the same prefixes: what is labelled twice counts once.
    twice = (Found(grown[0], steps, "complete"),) * 2
    row = sums(world, asked, Finding(twice, rejects=(reject,)))
    assert (row[AT["right_labels"]], row[AT["labelled"]]) == (8, 0)
    assert (row[AT["solutions"]], row[AT["unresolved"]]) == (1, 1)


def _reject(question: Question) -> Any:
    from schemas.records import Reject

    unit = question.solutions[0].trajectory.response_id
    assert unit is not None
    return Reject(unit=unit, stage="process", code="not_selected", detail="")


def test_the_bootstrap_is_paired_and_weighs_cells_alike() -> None:
    def rows(tokens: list[float]) -> np.ndarray:
        found = np.zeros((len(tokens), len(COLUMNS)))
        found[:, AT["solutions"]] = 1
        found[:, AT["tokens"]] = tokens
        return found

    few, many = ("a", 0), ("b", 0)
    first = {few: rows([10, 30]), many: rows([100.0] * 50)}
    boots = Bootstrap({"x": first, "y": {key: 2 * own for key, own in first.items()}}, draws=200)
    read = boots.read("tokens_per_solution", "x", ["a", "b"])
    assert read.value == 60  # (20 + 100) / 2: by cell, not by question
    assert (read.low, read.high) == (55, 65)
    doubled = {key: own.copy() for key, own in first.items()}
    for own in doubled.values():
        own[:, AT["tokens"]] *= 2
    boots = Bootstrap({"x": first, "y": doubled}, draws=200)
    assert boots.ratio("tokens_per_solution", "x", "y", ["a", "b"]) == (0.5, 0.5, 0.5)
    assert boots.difference("tokens_per_solution", "x", "y", ["b"]) == (-100, -100, -100)
    assert math.isnan(boots.read("coverage_90", "x", ["a"]).value)


# --- the whole -----------------------------------------------------------------------------------


def test_a_small_grid_gives_the_documented_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = {"monte_carlo k=8", "binary k=8", "every k=32, half of root", "omega"}
    some = tuple(m for m in table.methods()[0] if m.name in keep)
    monkeypatch.setattr(table, "methods", lambda: (some, ()))
    cells = [Cell(8, 0.3, 0.0), Cell(8, 0.3, 0.15)]
    rows: dict[str, dict[Any, np.ndarray]] = {}
    for cell in cells:
        _, own = grid.stratum(grid.Task(cell, 17, 3, right=False))
        for name, found in own.items():
            assert found.shape == (3, len(COLUMNS))
            rows.setdefault(name, {})[cell.name, 17] = found
    first = next(iter(rows.values()))
    for own in rows.values():  # the same questions and solutions for all
        for key, found in own.items():
            assert (found[:, AT["solutions"]] == first[key][:, AT["solutions"]]).all()
    boots = Bootstrap(rows, 50)
    figures, intervals, tables = grid.headline(boots, cells)
    for name in (
        *("step_accuracy_q15", "tokens_ratio_to_best_rival_q15", "ece"),
        *("coverage_90", "coverage_90_inside", "coverage_90_labelled_right"),
    ):
        for tail in ("", "_wrong_priors", "_false_priors"):
            assert intervals[name + tail][0] <= intervals[name + tail][1]
            assert math.isfinite(figures[name + tail])
    assert set(tables["priors"]) == {n for n in rows if n.startswith("changepoint")} - {
        "changepoint, no answers"
    }
    q15 = [cells[1].name]
    rival = tables["rival_q15"]
    ours_, theirs = (
        boots.read("tokens_per_solution", name, q15).value for name in ("changepoint", rival)
    )
    assert figures["tokens_ratio_to_best_rival_q15"] == pytest.approx(ours_ / theirs)


def test_the_best_rival_is_the_cheapest_that_reaches_the_goal_else_the_most_accurate() -> None:
    def row(right: float, tokens: float) -> np.ndarray:
        found = np.zeros((1, len(COLUMNS)))
        for name, value in (("solutions", 1), ("steps", 100), ("tokens", tokens)):
            found[0, AT[name]] = value
        found[0, AT["forced_right"]] = right
        return found

    def best(**points: tuple[float, float]) -> str:
        names = {"a": "monte_carlo k=8", "b": "binary k=8", "c": "binary k=16"}
        rows = {names[key]: {("cell", 0): row(*own)} for key, own in points.items()}
        rows["omega"] = {("cell", 0): row(100, 1)}  # no fixed-k rival
        return grid.best_rival(Bootstrap(rows, 2), ["cell"])

    assert best(a=(95, 50), b=(99, 70), c=(94, 10)) == "monte_carlo k=8"
    assert best(a=(90, 50), b=(94, 70), c=(93, 10)) == "binary k=8"


def test_priors_that_are_wrong_on_purpose_are_never_fitted() -> None:
    cell = Cell(8, 0.3, 0.0)
    world = World(cell)
    questions = world.questions(3)
    chosen = ours.wrong_on_purpose(cell)
    _, last = ours.run(world, questions, chosen)
    assert last == Changepoint(chosen).priors
    _, fitted = ours.run(world, questions, ours.config())
    assert fitted != Changepoint(ours.config()).priors
    _, kept = ours.run(world, questions, ours.config(), fitted)
    assert kept == fitted


def test_the_frontier_names_every_line_and_keeps_labels_in_the_picture() -> None:
    spots = [Spot(f"m k={k}", "m", "fixed", 100.0 * k, 0.5 + k / 100) for k in (8, 16, 32)]
    spots += [Spot(f"<{i}>", f"<{i}>", "ours", 5000.0, 0.9) for i in range(12)]
    spots.append(Spot("free", "free", "judge", 0.0, 0.9))
    drawing = str(frontier(spots, "Frontier"))
    assert drawing.count("<circle") == 15  # what costs no rollouts has no place on the axis
    assert "&lt;3&gt;: 0.900 at 5,000 tokens" in drawing
    assert "<3>" not in drawing
    heights = [float(part.split('"')[0]) for part in drawing.split(' y="')[1:]]
    assert max(heights) <= HEIGHT


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--part", "nonsense"])
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err
