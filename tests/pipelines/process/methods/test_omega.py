"""OmegaPRM against a scripted policy whose values are known."""

from __future__ import annotations

import random

import pytest

from pipelines.process.config import OmegaConfig, ProcessConfig
from pipelines.process.methods.omega import search, settings
from pipelines.process.search import Drawn, Question, Solution
from pipelines.process.siblings import probability_better
from schemas.errors import BadReply
from tests.pipelines.process.methods.driving import Driven, drive, question, rollout, solution

STEPS = 8
K = 8


def config(stop_at: int = 0, k: int = K, **omega: object) -> ProcessConfig:
    return ProcessConfig(
        engine="e", method="omega", k=k, stop_at=stop_at, omega=OmegaConfig(**omega)
    )


def chain(error: int, steps: int = STEPS) -> Solution:
    """A wrong solution of which step `error` (from 1) is the first that is wrong."""
    return solution("\n".join(f"{'ok' if t < error else 'bad'} {t}" for t in range(1, steps + 1)))


def policy(prefix: str, index: int, prover: bool) -> Drawn:
    """Value 1/2 from every sound prefix, every other rollout being right; none after an error."""
    assert not prover
    done = prefix.count("\n")
    if "bad" not in prefix and index % 2 == 0:
        text = "\n".join(f"ok {t}" for t in range(done + 1, STEPS + 1))
        return rollout("right", text)
    text = "\n".join(f"bad {t} {index}" for t in range(done + 1, STEPS + 1))
    # Long rollouts: the given solutions have the higher priority.
    return rollout("wrong", text, tokens=400)


def run(given: Question, settings: ProcessConfig, draw=policy, budget: int | None = None) -> Driven:
    return drive(search(given, settings), given, draw, budget)


def positions(driven: Driven) -> list[int]:
    return [ask.prefix.position for wave in driven.waves for ask in wave]


@pytest.mark.parametrize(
    ("error", "tested"),
    [
        (1, [4, 2, 1]),
        (2, [4, 2, 1]),
        (3, [4, 2, 3]),
        (4, [4, 2, 3]),
        (5, [4, 6, 5]),
        (6, [4, 6, 5]),
        (7, [4, 6, 7]),
        (8, [4, 6, 7]),
    ],
)
def test_the_first_error_is_found_by_halving(error: int, tested: list[int]) -> None:
    own = chain(error)
    driven = run(question(own), config(searches=1))
    assert positions(driven) == [0, *tested]
    assert all(ask.n == K for wave in driven.waves for ask in wave)
    found = driven.found(own.text)
    assert (found.first_error, found.stopped, found.resolved) == (error - 1, "complete", True)
    for t, step in enumerate(found.steps, 1):
        if t in tested:
            assert (step.n, step.successes) == (K, K // 2 if t < error else 0)
            assert step.value == (0.5 if t < error else 0.0)
        elif t < STEPS:
            assert (step.n, step.value) == (0, None)
        if t < error:
            assert step.label == "right"
            assert step.source == ("rollouts" if t in tested else "inferred")
        elif t == error:
            assert step.label == "wrong"
            assert step.source == ("answer" if t == STEPS else "rollouts")
        elif t < STEPS:
            assert (step.label, step.source) == (None, "none")
    last = found.steps[-1]
    assert (last.label, last.source, last.value) == ("wrong", "answer", 0.0)
    assert [(a.position, a.count, a.of) for a in found.asked] == [
        (p, K, "policy") for p in (0, *tested)
    ]
    assert [a.why for a in found.asked[:2]] == ["root", "binary search 0..8"]


def test_curtailed_tests_give_the_same_labels_for_about_half_the_draws() -> None:
    drawn = {0: 0, 2: 0}
    for error in range(1, STEPS + 1):
        labels = {}
        for stop_at in drawn:
            given = question(chain(error))
            found = run(given, config(stop_at, searches=1)).found(given.solutions[0].text)
            labels[stop_at] = [(step.label, step.source) for step in found.steps]
            tests = [d for (_, text), d in given.book.draws.items() if text]
            drawn[stop_at] += sum(map(len, tests))
            assert len(given.book.draws[False, ""]) == K  # the root is never curtailed
        assert labels[0] == labels[2]
    # Of the 24 tests half are at sound prefixes, where the first rollout is right.
    assert drawn == {0: 24 * K, 2: 12 * 1 + 12 * K}


def test_the_pool_in_order_of_the_formula() -> None:
    """Worked by hand: L 500, alpha .5, beta .9, c .125; root MC 1/2, state `r` MC 3/4.

    1. Q: given .5^.5 * .9^2 = .573, root's rollout .5^.5 * .9^.2 = .692; U 0: the rollout. Its
       test makes state `r`, whose wrong rollouts have 2,000 and 2,200 tokens.
    2. U: root .125 * 1 / 2 = .0625, `r` .125. Given .635; 2,000: .841 * .656 + .125 = .677; that.
    3. U: both .125 * 1.414 / 2 = .088. Given .661; 2,200: .841 * .629 + .088 = .617; the given one.
       Not refreshed, the last would still have .654, more than the given one's .635.
    """

    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        if prefix == "":
            return rollout("right", "ok") if index % 2 else rollout("wrong", "r\nx", 100)
        if prefix == "r\n" and index in (3, 5):
            return rollout("wrong", f"w{index}\nx", 2000 if index == 3 else 2200)
        return rollout("right", "ok") if prefix == "r\n" else rollout("wrong", "x")

    own = solution("g\nx", tokens=1000)
    driven = run(question(own), config(), draw)
    order = [text for text, _ in driven.asked]
    assert order == ["", "r\n", "r\nw3\n", "g\n", "r\nw5\n"]
    # Without exploration the given one (.573) comes before both (.552, .529).
    driven = run(question(own), config(exploration=0), draw)
    assert [text for text, _ in driven.asked] == ["", "r\n", "g\n", "r\nw3\n", "r\nw5\n"]


def random_policy(seed: int) -> object:
    """Three words, so that equal texts come often; q = 1/4; some rollouts without an answer."""

    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        rng = random.Random(f"{seed} {prefix} {index}")
        pieces = [rng.choice("abx") for _ in range(5 - prefix.count("\n"))]
        bad = "x" in prefix + "".join(pieces)
        outcome = "right" if not bad or rng.random() < 0.25 else "wrong"
        if rng.random() < 0.1:
            outcome = rng.choice(["truncated", "unparsed"])
        return rollout(outcome, "\n".join(pieces), rng.randint(5, 50))

    return draw


@pytest.mark.parametrize("seed", range(8))
def test_no_text_is_searched_twice_and_none_but_wrong_ones(seed: int) -> None:
    own = [solution("a\nx\nb\na\na"), solution("a\nb\nb\nb\nx"), solution("a\na\na\na\na", True)]
    for stop_at in (0, 1):
        given = question(*own)
        driven = run(given, config(stop_at, k=6), random_policy(seed))
        found = driven.finding.found
        texts = [f.solution.text for f in found]
        assert len(texts) == len(set(texts)) and len(texts) > 3
        assert texts[:3] == [s.text for s in own]
        assert all(f.solution.final_right is False for f in found[3:])
        assert all(f.solution.trajectory.response_id is None for f in found[3:])
        # Every wrong text that the searches came by was searched: the pool ran empty.
        wrong = {
            text + d.text
            for (_, text), draws in given.book.draws.items()
            if text == "" or any(d.outcome == "right" for d in draws)
            for d in draws
            if d.outcome == "wrong"
        }
        assert wrong <= set(texts)
        assert {f.stopped for f in found[:2]} <= {"complete", "contradicted", "undecided"}
        assert all(n <= 6 for _, n in driven.asked)
        assert len({text for text, _ in driven.asked}) == len(given.book.draws)
        again = question(*own)
        assert run(again, config(stop_at, k=6), random_policy(seed)) == driven


def test_a_right_solution_is_not_searched_and_has_what_others_say() -> None:
    right = solution("\n".join(f"ok {t}" for t in range(1, STEPS + 1)), True)
    cut = solution("ok 1\nbad 2", None, ended=False)
    driven = run(question(chain(6), right, cut), config(searches=1))
    found = driven.found(right.text)
    assert (found.stopped, found.resolved, found.first_error) == ("not_searched", False, None)
    assert [step.n for step in found.steps] == [0, 0, 0, K, K, 0, 0, 0]
    assert [step.label for step in found.steps] == ["right"] * 5 + [None, None, "right"]
    assert found.steps[-1].source == "answer"
    other = driven.found(cut.text)
    assert (other.stopped, other.resolved) == ("not_searched", False)
    assert [step.label for step in other.steps] == [None, None]


def test_what_was_never_popped_is_unresolved_with_what_is_known() -> None:
    first, second = chain(6), chain(5)
    driven = run(question(first, second), config(searches=1))
    assert driven.found(first.text).resolved
    found = driven.found(second.text)
    assert (found.stopped, found.resolved) == ("searches", False)
    assert [step.label for step in found.steps[:5]] == ["right"] * 4 + [None]
    assert [step.source for step in found.steps[:4]] == ["inferred"] * 3 + ["rollouts"]


def test_without_budget_the_labels_are_partial() -> None:
    own = chain(6)
    driven = run(question(own), config(), budget=K + K + 3)
    assert positions(driven) == [0, 4, 6]
    found = driven.found(own.text)
    assert (found.stopped, found.resolved) == ("budget", False)
    assert [step.n for step in found.steps] == [0, 0, 0, K, 0, 3, 0, 0]
    # Three failures of eight draws refute nothing yet.
    assert [step.label for step in found.steps] == ["right"] * 4 + [None] * 3 + ["wrong"]
    nothing = run(question(own), config(), budget=0).found(own.text)
    assert (nothing.stopped, nothing.resolved) == ("budget", False)
    assert [step.label for step in nothing.steps] == [None] * 7 + ["wrong"]


@pytest.mark.parametrize("limit", [5, 8, 20, 35, 100])
def test_the_limit_on_rollouts_holds(limit: int) -> None:
    given = question(chain(6), chain(5), chain(2))
    driven = run(given, config(rollouts=limit))
    drawn = sum(map(len, given.book.draws.values()))
    assert limit - K < drawn <= limit
    ends = [f.stopped for f in driven.finding.found[:3]]
    assert ends == sorted(ends)  # "complete" before "rollouts"
    assert any(f.stopped == "rollouts" for f in driven.finding.found)


def test_rollouts_without_an_answer_are_neither_right_nor_wrong() -> None:
    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        return rollout("truncated" if index % 2 else "unparsed", "bad 1\nbad 2")

    own = chain(3)
    found = run(question(own), config(), draw).found(own.text)
    assert (found.stopped, found.resolved) == ("undecided", False)
    tested = found.steps[3]
    assert (tested.n, tested.truncated, tested.unparsed, tested.value) == (K, 4, 4, None)
    assert [step.label for step in found.steps] == [None] * 7 + ["wrong"]


def test_a_question_without_a_right_rollout_is_searched_all_the_same() -> None:
    own = chain(1)
    driven = run(question(own), config(), lambda *_: rollout("wrong", "bad 0\nbad 0"))
    assert driven.found(own.text).first_error == 0


def test_a_request_without_an_answer_rejects_the_solutions_that_need_it() -> None:
    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        if prefix.count("\n") == 6:
            raise BadReply("bad_request", "too long")
        return policy(prefix, index, prover)

    fails, works = chain(7), chain(3)
    finding = run(question(fails, works), config(searches=2, exploration=0), draw).finding
    assert [f.solution for f in finding.found] == [works]
    [reject] = finding.rejects
    assert (reject.unit, reject.code) == (fails.trajectory.response_id, "bad_request")

    def never(prefix: str, index: int, prover: bool) -> Drawn:
        raise BadReply("bad_request", "no")

    finding = run(question(fails, works), config(), never).finding
    assert (finding.found, len(finding.rejects)) == ((), 2)


def test_siblings_that_were_tested_make_a_pair() -> None:
    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        right = "x" not in prefix and index < 6
        return rollout("right", "r") if right else rollout("wrong", "w")

    one, other = solution("a\nb\nx\nx"), solution("a\nx\nx\nx")
    [pair] = run(question(one, other), config(), draw).finding.pairs
    assert (pair.prefix, pair.chosen, pair.rejected) == ("a\n", "b\n", "x\n")
    assert (pair.chosen_value, pair.rejected_value) == (0.75, 0.0)
    assert pair.probability == pytest.approx(probability_better(6, 2, 0, 8))
    assert pair.method.startswith("omega(")


def test_a_search_that_a_later_success_refutes_is_contradicted() -> None:
    """`a` fails by chance, so step 1 is the first error; then a path through it succeeds."""

    def draw(prefix: str, index: int, prover: bool) -> Drawn:
        if prefix == "":
            return rollout("right", "ok")
        lucky = prefix.startswith("a\nb\nc\n") and index == 0
        return rollout("right", "ok") if lucky else rollout("wrong", "x")

    short = solution("a\nb\nc\nd\nx", tokens=1)
    long = solution("a\nb\nc\ne\ne\ny", tokens=9)
    driven = run(question(short, long), config(), draw)
    assert [text for text, _ in driven.asked][:4] == ["", "a\nb\n", "a\n", "a\nb\nc\n"]
    found = driven.found(short.text)
    assert (found.stopped, found.resolved) == ("contradicted", False)
    assert [step.label for step in found.steps] == ["right", "right", "right", None, "wrong"]
    assert [step.value for step in found.steps] == [0.0, 0.0, 1 / K, None, 0.0]
    assert driven.found(long.text).first_error == 5


def test_the_variants_defaults() -> None:
    plain = ProcessConfig(engine="e", method="omega")
    mm = ProcessConfig(engine="e", method="omega_mm")
    own = ProcessConfig(
        engine="e", method="omega_mm", omega=OmegaConfig(searches=100, rollouts=7, length=3)
    )
    read = [
        (s.searches, s.rollouts, s.length, s.alpha, s.beta, s.exploration)
        for s in map(settings, (plain, mm, own))
    ]
    assert read == [
        (100, None, 500, 0.5, 0.9, 0.125),
        (200, 1000, 2000, 0.5, 0.9, 0.125),
        (100, 7, 3, 0.5, 0.9, 0.125),
    ]
