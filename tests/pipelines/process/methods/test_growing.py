"""Paths that a search grew, and what follows from tested positions."""

from __future__ import annotations

from pipelines.process.methods.growing import ROOT, labelled, path, stem
from pipelines.process.search import Prefix, Step
from tests.pipelines.process.methods.driving import PROMPT, question, rollout, solution

HIT = Step(n=2, successes=1, value=0.5, label="right", source="rollouts")
MISS = Step(n=2, value=0.0, label="wrong", source="rollouts")
BARE = Step()


def test_a_path_is_its_stem_and_the_rollout() -> None:
    own = solution("a\nb\nc\n#2", tokens=40)
    grown = path(question(own), stem(own, 2), rollout("wrong", "\nd\ne\n\n#3", 7), "lines")
    assert grown.text == "a\nb\n\nd\ne\n\n#3"
    t = grown.trajectory
    # The stem's steps stay what they are, though the rollout begins with a blank line.
    assert t.steps == ("a", "b", "\nd", "e", "#3")
    assert (t.starts, t.ends) == ((0, 2, 4, 7, 10), (2, 4, 7, 10, 12))
    assert t.response_id is None and t.text == grown.text and t.token_ends == ()
    asked = question(own)
    assert t.prefixes == tuple(asked.prefix_id(grown.text[:end]) for end in (0, 2, 4, 7, 10, 12))
    assert t.prompt_id == PROMPT.id
    assert (grown.ended, grown.final_right, grown.tokens) == (True, False, 27)
    assert grown.prefix(2) == own.prefix(2) == Prefix("a\nb\n", 2)


def test_a_truncated_path_did_not_end() -> None:
    grown = path(question(), ROOT, rollout("truncated", "a\nb"), "lines")
    assert (grown.ended, grown.final_right, grown.last) == (False, None, 2)


def labels(evidence: list[Step], refuted: set[int], right: bool | None = False) -> str:
    """R/r: right by rollouts or inferred; W/w: wrong by rollouts or by the answer; ?: `unresolved`."""
    own = solution("\n".join(map(str, range(len(evidence)))), right)
    steps, found = labelled(own, evidence, refuted)
    signs = {
        ("right", "rollouts"): "R",
        ("right", "inferred"): "r",
        ("right", "answer"): "A",
        ("wrong", "rollouts"): "W",
        ("wrong", "answer"): "w",
        (None, "none"): "-",
    }
    return "".join(signs[step.label, step.source] for step in steps) + "?" * (not found)


def test_what_follows_from_what_was_tested() -> None:
    assert labels([BARE, HIT, MISS, BARE, BARE], {3}) == "rRW-w"
    assert labels([MISS, BARE, BARE], {1}) == "W-w"
    # The last step: its wrong answer says so, nothing was sampled.
    assert labels([BARE, HIT, BARE], set()) == "rRw"
    assert labels([BARE], set()) == "w"
    # Somewhere in steps 2 and 3 (from 1): unresolved.
    assert labels([HIT, BARE, MISS, BARE], {3}) == "R--w?"
    # A success after a miss: the prefix was sound.
    assert labels([MISS, BARE, HIT, BARE], {1}) == "rrRw"
    # A miss that is not certain refutes nothing.
    assert labels([HIT, MISS, BARE], set()) == "R-w?"


def test_of_a_right_solution_nothing_is_refuted() -> None:
    assert labels([HIT, MISS, BARE], {2}, right=True) == "R-A?"
    assert labels([BARE, HIT, BARE], set(), right=True) == "rRA"
    assert labels([HIT, MISS, BARE], {2}, right=None) == "RW-"


def test_a_cut_solution_has_its_last_position_tested() -> None:
    own = solution("a\nb", None, ended=False)
    steps, found = labelled(own, [BARE, HIT], set())
    assert [(s.label, s.source) for s in steps] == [("right", "inferred"), ("right", "rollouts")]
    assert not found
    steps, found = labelled(own, [HIT, MISS], {2})
    assert found and steps[1].label == "wrong"
