"""Merge a question's solutions into a tree of prefixes, and lay it out without recursion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from flows.steps_data import QuestionSteps
from schemas.records import StepLabels, StepPair

MOST_NODES = 400
"""Nodes drawn of a tree."""
MOST_FORKS = 24
"""Forks drawn inside each other; a page nested without end is no page."""


@dataclass
class Node:
    """A prefix that one or more solutions go through."""

    prefix_id: str
    position: int
    """How many steps it keeps; 0: the question alone."""
    prefix: str
    """Its text."""
    through: list[int] = field(default_factory=list)
    """Solutions that have it, by their number from 1."""
    ends: list[int] = field(default_factory=list)
    """Solutions that end here."""
    first_error_of: list[int] = field(default_factory=list)
    """Solutions whose first wrong step leads here."""
    children: list[Node] = field(default_factory=list)
    pairs: list[StepPair] = field(default_factory=list)
    """Preferences between its children."""
    labels: StepLabels | None = None
    """The labels whose estimate is shown: those with most rollouts behind it, the first of equals."""
    index: int = -1
    """The step that leads here, in those labels."""


class Token(NamedTuple):
    """A piece of the drawing; `run` is closed by `end`, `fork` by `unfork`."""

    kind: Literal["run", "end", "fork", "unfork", "node", "more"]
    node: Node | None = None
    nodes: int = 0
    """Of `more`: nodes that are not drawn from here on."""


def merge(question: QuestionSteps) -> tuple[Node, tuple[StepPair, ...]]:
    """The tree's root, and the preferences whose prefix is no node of it."""
    nodes: dict[str, Node] = {}
    by_text: dict[str, Node] = {}
    for number, solved in enumerate(question.solutions, 1):
        trajectory, labels = solved.trajectory, solved.labels
        above: Node | None = None
        for position, prefix_id in enumerate(trajectory.prefixes):
            node = nodes.get(prefix_id)
            if node is None:
                text = solved.text[: trajectory.ends[position - 1]] if position else ""
                node = nodes[prefix_id] = Node(prefix_id, position, text)
                by_text[text] = node
                if above is not None:
                    above.children.append(node)
            node.through.append(number)
            if position:
                step = position - 1
                if node.labels is None or node.labels.n[node.index] < labels.n[step]:
                    node.labels, node.index = labels, step
                if labels.first_error == step:
                    node.first_error_of.append(number)
            above = node
        assert above is not None
        above.ends.append(number)
    astray = []
    for pair in question.pairs:
        home = by_text.get(pair.prefix)
        if home is None:
            astray.append(pair)
        else:
            home.pairs.append(pair)
    root = by_text.get("") or Node("", 0, "")
    return root, tuple(astray)


def size(root: Node) -> int:
    """Nodes from here on, itself included."""
    return sum(1 for _ in walk(root))


def walk(root: Node) -> Iterator[Node]:
    """All nodes, each before those below it."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def layout(root: Node) -> list[Token]:
    """The tree as nested runs: a run goes on while there is one way on, a fork holds a run for each.

    Only forks indent, so a long solution stays as wide as a short one.
    """
    tokens: list[Token] = []
    todo: list[tuple[Token | Node, int]] = [(Token("end"), 0), (root, 0)]
    tokens.append(Token("run"))
    drawn = 0
    while todo:
        item, depth = todo.pop()
        if isinstance(item, Token):
            tokens.append(item)
            continue
        if drawn >= MOST_NODES or depth > MOST_FORKS:
            tokens.append(Token("more", item, size(item)))
            continue
        drawn += 1
        tokens.append(Token("node", item))
        if len(item.children) == 1:
            todo.append((item.children[0], depth))
        elif item.children:
            todo.append((Token("unfork"), 0))
            for child in reversed(item.children):
                todo += [(Token("end"), 0), (child, depth + 1), (Token("run"), 0)]
            tokens.append(Token("fork"))
    return tokens
