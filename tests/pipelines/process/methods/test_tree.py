"""PUCT search over steps against scripted policies."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from pipelines.process.config import ProcessConfig, TreeConfig
from pipelines.process.methods.tree import search
from pipelines.process.search import Drawn, Question
from pipelines.process.siblings import probability_better
from schemas.errors import BadReply
from tests.pipelines.process.methods.driving import Driven, drive, question, rollout, solution

Table = Mapping[str, Sequence[tuple[str, str]]]
"""Outcomes and texts of the rollouts of each prefix, in order."""


def config(**tree: object) -> ProcessConfig:
    return ProcessConfig(engine="e", method="tree", tree=TreeConfig(**tree))


def run(given: Question, settings: ProcessConfig, draw, budget: int | None = None) -> Driven:
    if isinstance(draw, dict):
        table = draw

        def draw(prefix: str, index: int, prover: bool) -> Drawn:
            return rollout(*table[prefix][index])

    return drive(search(given, settings), given, draw, budget)


def waves(driven: Driven) -> list[list[str]]:
    return [[ask.prefix.text for ask in wave] for wave in driven.waves]


ROOT = [("right", "a\nz"), ("wrong", "b\nz"), ("wrong", "b\ny"), ("truncated", "c\nz\nz")]
BELOW = {step: [("wrong", f"{i}\nz") for i in range(4)] for step in ("a\n", "b\n", "c\n")}


@pytest.mark.parametrize(
    ("exploration", "simulations", "expected"),
    [
        (1.0, 2, ["a\n"]),
        (1.0, 3, ["a\n", "c\n"]),
        (5.0, 3, ["a\n", "b\n"]),
        (0.0, 3, ["a\n", "c\n"]),
    ],
)
def test_selection_by_hand(exploration: float, simulations: int, expected: list[str]) -> None:
    """After the root: N 4; a: N 1, Q 1, P 1/4; b: N 2, Q 0, P 1/2; c: N 1, Q the root's 1/3, P 1/4.

    Scores with c 1: a 1 + .25 * 2/2 = 1.25, b .5 * 2/3 = .33, c .33 + .25 = .58. Once `a` is to
    have 4 visits, N is 8: b .47, c .33 + .25 * 2.83/2 = .69. With c 5: a 2.25 first (b 1.67,
    c 1.58), then b 2.36, c 2.10.
    """
    settings = config(exploration=exploration, simulations=simulations)
    driven = run(question(), settings, {"": ROOT} | BELOW)
    assert waves(driven) == [[""], expected]
    assert all(ask.n == 4 for wave in driven.waves for ask in wave)


def test_values_are_backed_up_to_the_root() -> None:
    """Expanding `a` (Q 1) gives 4 wrong ones: Q 1/5 then, below c's and above b's."""
    table = {"": [("right", "a\nz"), ("wrong", "b\nz")], "a\n": BELOW["a\n"][:2], "b\n": []}
    table["a\n"] = [("wrong", "0\nz"), ("wrong", "1\nz")]
    table |= {"b\n": [("right", "2\nz"), ("right", "3\nz")]}
    table |= {
        f"{step}\n{i}\n": [("wrong", "z")] * 2
        for step, i in (("a", 0), ("a", 1), ("b", 2), ("b", 3))
    }
    driven = run(question(), config(width=2, simulations=4, exploration=0), table)
    # a: (1 + 0 + 0) / 3; b: (0 + 1 + 1) / 3, and its oldest child is as good as the other.
    assert waves(driven) == [[""], ["a\n", "b\n"], ["b\n2\n"]]


def chain(error: int, steps: int = 4, **more: object):
    texts = (f"{'ok' if t < error else 'bad'} {t}" for t in range(1, steps + 1))
    return solution("\n".join(texts), **more)  # type: ignore[arg-type]


def chain_policy(prefix: str, index: int, prover: bool) -> Drawn:
    """Half of the rollouts from a sound prefix are right; none after an error; four steps."""
    done = prefix.count("\n")
    if "bad" not in prefix and index % 2 == 0:
        return rollout("right", "\n".join(f"ok {t}" for t in range(done + 1, 5)))
    return rollout("wrong", "\n".join(f"bad {t}" for t in range(done + 1, 5)))


@pytest.mark.parametrize("error", [1, 2, 3, 4])
def test_the_first_error_of_a_given_solution_is_found(error: int) -> None:
    own = chain(error)
    given = question(own)
    driven = run(given, config(width=4, simulations=64), chain_policy)
    found = driven.found(own.text)
    assert (found.first_error, found.resolved, found.stopped) == (error - 1, True, "complete")
    for t, step in enumerate(found.steps[:-1], 1):
        assert step.label == ("right" if t < error else "wrong" if t == error else None)
        assert step.n >= 4  # it was expanded
        if t >= error:
            assert step.value == 0.0
    # Rollouts of `ok 1`: four of its own, half of them right, and the root's two that took it.
    if error > 1:
        assert (found.steps[0].n, found.steps[0].successes) == (6, 4)
        assert found.steps[0].tokens == 4 * 10  # the root's are counted at the root
    assert [(a.position, a.count, a.of) for a in found.asked] == [
        (p, 4, "policy") for p in range(4)
    ]
    assert found.asked[0].why == "expansion 1"
    assert found.steps[-1].source == "answer"


def test_what_was_not_visited_is_not_labelled() -> None:
    own = chain(4)
    found = run(question(own), config(simulations=1), chain_policy).found(own.text)
    # The root's two right rollouts went through the solution's first three steps: it is the last.
    assert (found.stopped, found.resolved, found.first_error) == ("simulations", True, 3)
    assert [step.n for step in found.steps] == [2, 2, 2, 0]
    assert [step.label for step in found.steps] == ["right"] * 3 + ["wrong"]
    other = chain(2)
    found = run(question(other), config(simulations=1), chain_policy).found(other.text)
    assert not found.resolved
    assert [(step.n, step.value) for step in found.steps[:3]] == [(2, 1.0), (0, None), (0, None)]
    assert [step.label for step in found.steps] == ["right", None, None, "wrong"]


def test_few_wrong_rollouts_that_passed_by_prove_no_error() -> None:
    own = solution("b\nq\nz")
    found = run(question(own), config(simulations=1), {"": ROOT}).found(own.text)
    assert (found.steps[0].n, found.steps[0].value, found.steps[0].label) == (2, 0.0, None)
    assert not found.resolved


def test_a_right_solution_is_a_success_that_nothing_refutes() -> None:
    own = solution("b\nq\nz", True)
    table = {"": ROOT, "b\n": BELOW["b\n"]}
    settings = config(simulations=2, depth=2, exploration=1000)
    found = run(question(own), settings, table).found(own.text)
    assert found.steps[0].n == 6 and found.steps[0].value == 0.0
    assert [step.label for step in found.steps] == [None, None, "right"]


def random_policy(seed: int):
    """Two words, so that first steps merge; five lines at most; some rollouts without an answer."""

    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        rng = random.Random(f"{seed} {prefix} {index}")
        pieces = [rng.choice("ab") for _ in range(rng.randint(1, 5 - prefix.count("\n")))]
        outcome = rng.choice(["right", "wrong", "wrong", "truncated", "unparsed"])
        return rollout(outcome, "\n".join(pieces), rng.randint(1, 9))

    return draw


@pytest.mark.parametrize("seed", range(10))
def test_counts_add_up_and_a_run_repeats_itself(seed: int) -> None:
    own = [solution("a\nb\na", True), solution("b\nb\nb\na"), solution("a\na", None, ended=False)]
    settings = config(simulations=12, width=3, depth=3)
    given = question(*own)
    driven = run(given, settings, random_policy(seed))
    assert len(given.book.draws) <= 12 and max(map(len, driven.waves)) <= 4
    assert all(len(draws) == 3 for draws in given.book.draws.values())
    assert all(ask.prefix.position < 3 for wave in driven.waves for ask in wave)
    for text in given.book.draws:
        assert text[1] == "" or text[1].endswith("\n") or text[1] == "a\na"
    for found in driven.finding.found[:3]:
        for p, step in enumerate(found.steps, 1):
            if p == found.solution.steps and found.solution.ended:
                assert step.n == 0  # its answer was checked
                continue
            # Those drawn there, and those drawn above that went the solution's way so far.
            prefix = found.solution.prefix(p).text
            met = [
                drawn
                for (_, start), draws in given.book.draws.items()
                for drawn in draws
                if start == prefix
                or (
                    prefix.startswith(start)
                    and (start + drawn.text).startswith(prefix)
                    and (prefix.endswith("\n") or start + drawn.text == prefix)
                    and not (drawn.outcome == "truncated" and start + drawn.text == prefix)
                )
            ]
            assert step.n == len(met), (found.solution.text, p)
            assert step.successes == sum(drawn.outcome == "right" for drawn in met)
            assert step.tokens == sum(
                drawn.tokens for drawn in given.book.draws.get((False, prefix), ())
            )
    for pair in driven.finding.pairs:
        assert pair.chosen_value - pair.rejected_value >= 0.25 - 1e-9
        assert pair.chosen.strip() != pair.rejected.strip()
    again = question(*own)
    assert run(again, settings, random_policy(seed)) == driven


def test_siblings_make_pairs() -> None:
    [pair] = run(question(), config(simulations=1), {"": ROOT}).finding.pairs
    assert (pair.prefix, pair.chosen, pair.rejected) == ("", "a\n", "b\n")
    assert (pair.chosen_value, pair.chosen_n, pair.rejected_value, pair.rejected_n) == (1, 1, 0, 2)
    assert pair.probability == pytest.approx(probability_better(1, 0, 0, 2))
    assert pair.method.startswith("tree(")
    assert len(run(question(), config(simulations=1, min_gap=1), {"": ROOT}).finding.pairs) == 1


def test_the_best_and_the_worst_grown_paths_are_labelled_without_themselves() -> None:
    table = {"": ROOT, "a\n": [("right", f"{i}\nz") for i in range(2)] + [("wrong", "2\nz")] * 2}
    found = run(question(), config(simulations=2), table).finding.found
    texts = [f.solution.text for f in found]
    # `a`: 3 of 5 right; without a path's own, 2/4 for the right ones and 3/4 for the wrong one,
    # which the second draw of its text leaves at 0 after `2`: 3/8 on the whole; `b`: 0.
    assert texts == ["a\nz", "a\n0\nz", "b\nz", "b\ny"]
    best = found[1]
    assert [step.n for step in best.steps] == [4, 0, 0]
    assert [step.value for step in best.steps] == [0.5, None, 1.0]
    assert [step.label for step in best.steps] == ["right", None, "right"]
    assert best.solution.trajectory.response_id is None
    assert [a.position for a in best.asked] == [0, 1]
    worst = found[2]
    assert [step.n for step in worst.steps] == [1, 0]
    assert [step.label for step in worst.steps] == [None, "wrong"]


def test_paths_that_end_are_not_expanded() -> None:
    table = {"": [("right", "a"), ("wrong", "b"), ("truncated", "c"), ("unparsed", "")]}
    driven = run(question(), config(), table)
    assert waves(driven) == [[""]]
    assert [f.stopped for f in driven.finding.found] == []  # no value is known along them
    deep = run(question(), config(depth=1), {"": ROOT})
    assert waves(deep) == [[""]]


def test_without_budget_what_came_is_kept() -> None:
    own = chain(3)
    driven = run(question(own), config(), chain_policy, budget=3)
    found = driven.found(own.text)
    assert (found.stopped, found.resolved) == ("budget", False)
    assert [step.n for step in found.steps] == [2, 2, 0, 0]
    assert [step.label for step in found.steps] == ["right", "right", None, "wrong"]


def test_a_request_without_an_answer_rejects_the_solutions_on_its_way() -> None:
    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        if prefix.startswith("bad"):
            raise BadReply("bad_request", "no")
        return chain_policy(prefix, index, prover)

    one, other = chain(1), chain(3)
    driven = run(question(one, other), config(), draw)
    finding = driven.finding
    assert not any(ask.prefix.text.startswith("bad 1\nbad") for ask in driven.waves[-1])
    [reject] = finding.rejects
    assert (reject.unit, reject.code) == (one.trajectory.response_id, "bad_request")
    assert finding.found[0].solution == other and finding.found[0].first_error == 2
