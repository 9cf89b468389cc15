"""Tree search over steps with PUCT (ReST-MCTS*, Zhang et al. 2024, arXiv 2406.03816, and its kin).

Nodes are prefixes. An expansion draws `width` rollouts of a node; their first steps are its
children, equal ones merged. Selection goes down from the root by the greatest

    Q + c * P * sqrt(N of the parent) / (1 + N)

(Silver et al. 2017): N counts the rollouts backed up through a node, Q is the share of right ones
among those with an answer (its parent's, while it has none), and P the child's share of the
parent's rollouts and of the solutions given. Those are paths of the tree from the start, with no
part in N and Q: they may be another policy's, and were not chosen at random.

Q leans to where the search went. Labels, pairs and their values rest on fewer rollouts: those
drawn at the prefix itself and those drawn at an earlier one that passed through it, all of which
are the policy's own way on from there. (How many they are still depends, a little, on how the
first of them ended.) A path that was grown is not counted in its own values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines.process.config import ProcessConfig, TreeConfig
from pipelines.process.methods.asking import step_of
from pipelines.process.methods.growing import ROOT, Stem, labelled, longer, path, stem
from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Finding,
    Found,
    Question,
    Search,
    Solution,
    Step,
    rejected,
    tally,
)
from pipelines.process.siblings import Child, step_pairs
from pipelines.process.splitting import completions
from schemas.errors import BadReply
from schemas.records import Asked, Reject

WAVE = 4
"""Most nodes that are expanded at once."""
SHOWN = 2
"""Most grown paths of either outcome that are labelled: the best right and the worst wrong ones."""


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions, and the best and the worst of the paths that were grown."""
    tree = _Tree(question, config)
    try:
        stopped = yield from tree.grow()
    except BudgetSpent:
        stopped = "budget"
    return tree.finding(stopped)


@dataclass(eq=False)
class _Node:
    stem: Stem
    parent: _Node | None
    step: str
    """The step that led here, with the separator that follows it."""
    given: bool
    """Whether it came with a solution; others count towards the width."""
    children: dict[str, _Node] = field(default_factory=dict)
    taken: int = 0
    """Rollouts of the parent, and given solutions, that took this step."""
    visits: int = 0
    right: int = 0
    wrong: int = 0
    goes_on: bool = False
    """Whether any path goes on from here; where none does, there is nothing to expand."""
    expanded: bool = False
    open: bool = False
    """Whether there is a node to expand, here or below."""
    asked: Asked | None = None
    failed: BadReply | None = None
    passed: list[_Rollout] = field(default_factory=list)
    """Rollouts drawn here, and those drawn above that came through here; known at the end."""

    @property
    def quality(self) -> float:
        """Q; 0 where nothing with an answer was backed up as far up as the root."""
        node: _Node | None = self
        while node is not None:
            if node.right + node.wrong:
                return node.right / (node.right + node.wrong)
            node = node.parent
        return 0.0


class _Rollout(NamedTuple):
    start: _Node
    drawn: Drawn


class _Tree:
    def __init__(self, question: Question, config: ProcessConfig) -> None:
        self.question, self.config = question, config
        self.settings = config.tree or TreeConfig()
        self.root = _Node(ROOT, None, "", given=True, goes_on=True)
        self.nodes = [self.root]
        self.rollouts: list[_Rollout] = []
        for solution in question.solutions:
            self._insert(solution)
        self._refresh(self.root)

    def _insert(self, solution: Solution) -> None:
        node = self.root
        for position in range(1, solution.steps + 1):
            node = self._child(node, stem(solution, position), given=True)
            node.taken += 1
            node.goes_on |= position <= solution.last
            self._refresh(node)

    def _child(self, parent: _Node, stem: Stem, given: bool) -> _Node:
        step = stem.prefix.text[len(parent.stem.prefix.text) :]
        if step not in parent.children:
            parent.children[step] = _Node(stem, parent, step, given)
            self.nodes.append(parent.children[step])
        return parent.children[step]

    def _refresh(self, node: _Node | None) -> None:
        """Bring `open` up to date, here and as far up as it changes anything."""
        while node is not None:
            before = node.open
            if node.failed:
                node.open = False  # the solutions that go this way are rejected
            elif node.expanded:
                node.open = any(child.open for child in node.children.values())
            else:
                node.open = node.goes_on and node.stem.prefix.position < self.settings.depth
            node = node.parent if node.open != before else None

    def grow(self) -> Generator[Sequence[Ask], None, str]:
        """Expand until a limit is reached; why it stopped."""
        book, width = self.question.book, self.settings.width
        expansions = 0
        while self.root.open:
            if expansions >= self.settings.simulations:
                return "simulations"
            leaves: list[_Node] = []
            size = min(WAVE, self.settings.simulations - expansions)
            while self.root.open and len(leaves) < size:
                leaf = self._leaf()
                leaves.append(leaf)
                expansions += 1
                leaf.asked = Asked(
                    position=leaf.stem.prefix.position,
                    count=width,
                    of="policy",
                    why=f"expansion {expansions}",
                )
                # Visits to come keep the wave's other nodes from crowding in the same place.
                leaf.expanded = True
                self._visit(leaf, width)
                self._refresh(leaf)
            try:
                yield [Ask(leaf.stem.prefix, width) for leaf in leaves]
            finally:
                # Also where the budget was spent meanwhile: part of the wave may have come.
                for leaf in leaves:
                    self._visit(leaf, -width)
                for leaf in leaves:
                    try:
                        # A question filter may have drawn more at the root.
                        self._expand(leaf, book.drawn(leaf.stem.prefix))
                    except BadReply as error:
                        leaf.failed = error
                        self._refresh(leaf)
        return "complete"

    def _leaf(self) -> _Node:
        """The node to expand next; of equal ones the oldest. There must be an open one."""
        node = self.root
        while node.expanded:
            parent, total = node, sum(child.taken for child in node.children.values())
            scale = self.settings.exploration * math.sqrt(parent.visits)
            node = max(
                (child for child in parent.children.values() if child.open),
                key=lambda c: c.quality + scale * c.taken / total / (1 + c.visits),
            )
        return node

    def _visit(self, node: _Node | None, count: int, outcome: str = "") -> None:
        while node is not None:
            node.visits += count
            node.right += outcome == "right"
            node.wrong += outcome == "wrong"
            node = node.parent

    def _expand(self, leaf: _Node, drawn: Sequence[Drawn]) -> None:
        for rollout in drawn:
            self.rollouts.append(_Rollout(leaf, rollout))
            steps = self._steps(rollout)
            last = leaf
            grown = sum(not child.given for child in leaf.children.values())
            if steps and (steps[0] in leaf.children or grown < self.settings.width):
                last = self._child(leaf, longer(leaf.stem, steps[:1], 0.0), given=False)
                last.taken += 1
                last.goes_on |= len(steps) > 1 or rollout.outcome == "truncated"
            self._visit(last, 1, rollout.outcome)
            self._refresh(last)
        self._refresh(leaf)

    def _steps(self, drawn: Drawn) -> tuple[str, ...]:
        """A rollout's steps; the last of a truncated one is no whole step."""
        pieces = completions(drawn.text, self.config.splitter)
        return pieces[:-1] if drawn.outcome == "truncated" else pieces

    def finding(self, stopped: str) -> Finding:
        """What is known; `stopped`: why the tree grew no further."""
        for rollout in self.rollouts:
            for node in self._way(rollout.start, self._steps(rollout.drawn)):
                node.passed.append(rollout)
        found: list[Found] = []
        rejects: list[Reject] = []
        for solution in self.question.solutions:
            error = next((node.failed for node in self._along(solution) if node.failed), None)
            if error is None:
                found.append(self._found(solution, stopped))
            else:
                rejects.append(rejected(solution, error))
        for solution, rollout in self._shown():
            found.append(self._found(solution, stopped, rollout))
        pairs = step_pairs(
            self.question.prompt.id,
            self._children(),
            self.settings.min_gap,
            self.config.described(),
        )
        return Finding(tuple(found), pairs, tuple(rejects))

    def _way(self, start: _Node, steps: Sequence[str]) -> list[_Node]:
        """The nodes on the way from `start`, itself included, as far as they are in the tree."""
        nodes = [start]
        for step in steps:
            if step not in nodes[-1].children:
                break
            nodes.append(nodes[-1].children[step])
        return nodes

    def _along(self, solution: Solution) -> list[_Node]:
        """The nodes of a solution, the root first."""
        cuts = itertools.pairwise((0, *solution.trajectory.ends))
        return self._way(self.root, [solution.text[a:b] for a, b in cuts])

    def _children(self) -> Iterator[Child]:
        for node in self.nodes:
            if node.parent is not None:
                seen = tally([rollout.drawn for rollout in node.passed])
                yield Child(node.parent.stem.prefix.text, node.step, seen.right, seen.wrong)

    def _evidence(self, node: _Node, besides: _Rollout | None) -> Step:
        """What the rollouts at a node and those through it say, `besides` left out."""
        kept = [rollout for rollout in node.passed if rollout is not besides]
        # Tokens count where the rollout began: not again at every step that it passed.
        own = [rollout.drawn.tokens for rollout in kept if rollout.start is node]
        return step_of([rollout.drawn for rollout in kept], 0)._replace(tokens=sum(own))

    def _found(self, solution: Solution, stopped: str, besides: _Rollout | None = None) -> Found:
        way = self._along(solution)
        evidence = [self._evidence(node, besides) for node in way[1:]]
        evidence += [Step()] * (solution.steps - len(evidence))
        if solution.ended:
            evidence[-1] = Step()  # its answer was checked
        # A few rollouts that passed by prove no error; as many as an expansion draws may.
        least = self.settings.width - (besides is not None)
        refuted = [
            p
            for p, step in enumerate(evidence, 1)
            if not step.successes and step.n - step.truncated - step.unparsed >= least
        ]
        steps, resolved = labelled(solution, evidence, refuted)
        asked = tuple(node.asked for node in way if node.asked)
        return Found(solution, steps, stopped, resolved, asked=asked)

    def _shown(self) -> Iterator[tuple[Solution, _Rollout]]:
        """The best right and the worst wrong paths, by the mean of the values known along them."""
        seen = {solution.text for solution in self.question.solutions}
        ranked: dict[str, list[tuple[float, _Rollout]]] = {"right": [], "wrong": []}
        for rollout in self.rollouts:
            start, drawn = rollout
            whole = start.stem.prefix.text + drawn.text
            if drawn.outcome not in ranked or not drawn.text.strip() or whole in seen:
                continue
            seen.add(whole)
            way = [*_above(start), *self._way(start, self._steps(drawn))]
            known = [self._evidence(node, rollout).value for node in way if node.parent]
            values = [value for value in known if value is not None]
            if values:
                mean = sum(values) / len(values)
                ranked[drawn.outcome].append((mean if drawn.outcome == "wrong" else -mean, rollout))
        for rollouts in ranked.values():
            for _, rollout in sorted(rollouts, key=lambda item: item[0])[:SHOWN]:
                start, drawn = rollout
                yield path(self.question, start.stem, drawn, self.config.splitter), rollout


def _above(node: _Node) -> list[_Node]:
    """The nodes above this one, the root first."""
    nodes: list[_Node] = []
    while node.parent is not None:
        node = node.parent
        nodes.append(node)
    return nodes[::-1]
