"""The tree of a question: merged by prefix, laid out as balanced runs and forks."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flows import steps_tree
from tests.flows.sample_steps import empty, pens, prompt, question, solve


def test_solutions_part_where_their_texts_do() -> None:
    root, astray = steps_tree.merge(question(pens()))
    assert root.through == [1, 2, 3, 4, 5]
    first, lost = root.children
    assert (first.through, lost.through) == ([1, 2, 3, 4], [5])
    given_away, odd = first.children
    assert (given_away.through, odd.through) == ([1, 2, 4], [3])
    assert [(child.through, child.position) for child in given_away.children] == [
        ([1], 3),
        ([2], 3),
        ([4], 3),
    ]
    wrong = given_away.children[1]
    assert wrong.first_error_of == [2]
    assert wrong.labels is not None
    assert wrong.labels.steps[wrong.index].startswith("Twice as many")
    # Preferences stand where their steps part; one after an unknown prefix is kept apart.
    assert [len(node.pairs) for node in (root, first, given_away, odd)] == [1, 1, 1, 0]
    assert [pair.prefix for pair in astray] == ["A prefix of no solution.\n"]


def test_a_node_shows_the_estimate_with_most_rollouts() -> None:
    rows = empty()
    rows.prompts.append(prompt("?", "1"))
    for n in (4, 9, 9, 2):
        solve(rows, rows.prompts[0], ["same\n", f"end {len(rows.labels)}"], n=(n, 0))
    root, _ = steps_tree.merge(question(rows))
    [same] = root.children
    assert same.labels is rows.labels[1]
    assert len(same.children) == 4


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), min_size=1, max_size=12))
def test_every_prefix_is_drawn_once_and_every_solution_ends_once(paths: list[list[str]]) -> None:
    rows = empty()
    rows.prompts.append(prompt("?", "1"))
    for path in paths:
        solve(rows, rows.prompts[0], path, grown=True)
    root, _ = steps_tree.merge(question(rows))
    nodes = list(steps_tree.walk(root))
    prefixes = {"".join(path[:n]) for path in paths for n in range(len(path) + 1)}
    assert sorted(node.prefix for node in nodes) == sorted(prefixes)
    assert sorted(n for node in nodes for n in node.ends) == list(range(1, len(paths) + 1))
    tokens = steps_tree.layout(root)
    assert Counter(id(t.node) for t in tokens if t.kind == "node") == Counter(map(id, nodes))
    open_: list[str] = []
    for token in tokens:
        if token.kind in ("run", "fork"):
            # A fork holds runs and a run holds forks: that is what makes the page's lists whole.
            assert not open_ or open_[-1] != token.kind
            open_.append(token.kind)
        elif token.kind in ("end", "unfork"):
            assert open_.pop() == {"end": "run", "unfork": "fork"}[token.kind]
        else:
            assert open_[-1] == "run"
    assert open_ == []


def test_a_huge_tree_is_cut_with_a_count() -> None:
    rows = empty()
    rows.prompts.append(prompt("?", "1"))
    for n in range(60):  # forks inside forks, one deeper each
        solve(rows, rows.prompts[0], [*(f"{t}." for t in range(n)), "x" * 12], grown=True)
    root, _ = steps_tree.merge(question(rows))
    tokens = steps_tree.layout(root)
    drawn = sum(t.kind == "node" for t in tokens)
    assert drawn + sum(t.nodes for t in tokens) == steps_tree.size(root) == 120
    depth = deepest = 0
    for token in tokens:
        depth += {"fork": 1, "unfork": -1}.get(token.kind, 0)
        deepest = max(deepest, depth)
    assert deepest == steps_tree.MOST_FORKS + 1

    wide = empty()
    wide.prompts.append(prompt("?", "1"))
    for n in range(100):
        solve(wide, wide.prompts[0], [f"{n} {t}." for t in range(9)], grown=True)
    root, _ = steps_tree.merge(question(wide))
    tokens = steps_tree.layout(root)
    assert sum(t.kind == "node" for t in tokens) == steps_tree.MOST_NODES
    assert steps_tree.MOST_NODES + sum(t.nodes for t in tokens) == 901
    assert all(a.kind != "fork" or b.kind == "run" for a, b in pairwise(tokens))
