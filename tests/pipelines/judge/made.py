"""Short ways to make cases for tests, and to read what a judge was shown."""

from __future__ import annotations

import re

from pipelines.engines.base import Request
from pipelines.judge.cases import Case
from schemas.records import Criterion, Message, Pair, Prompt, Response
from tests.pipelines import rows


def prompt(text: str = "How many pens has Ana?", reference: str | None = "6") -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), reference=reference, source="s")


def response(asked: Prompt, text: str, index: int = 0) -> Response:
    return rows.response(asked.id, index, text)


def case(
    a: str = "Six.",
    b: str = "Seven.",
    asked: Prompt | None = None,
    rubric: tuple[Criterion, ...] = (),
) -> Case:
    asked = asked or prompt()
    first, second = response(asked, a, 0), response(asked, b, 1)
    pair = Pair(prompt_id=asked.id, response_a=first.id, response_b=second.id)
    return Case(asked, pair, first, second, rubric)


def blocks(request: Request) -> dict[str, str]:
    """The blocks of a request by name, as a reader of their codes finds them."""
    content = request.messages[-1].content
    code = re.search(r"^<prompt-([0-9a-f]{16})>$", content, re.MULTILINE)
    assert code
    pattern = rf"^<([a-z_]+)-{code[1]}>\n(.*?)\n</\1-{code[1]}>$"
    return dict(re.findall(pattern, content, re.MULTILINE | re.DOTALL))
