"""People's side, in a real browser on a real server: questions are answered, hostile text runs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from annotation.answers import Answer
from annotation.configs import (
    KINDS,
    LONGEST,
    Item,
    PairItem,
    QuestionConfig,
    RubricItem,
    SpansItem,
    StepsItem,
)
from annotation.server import Server
from schemas.records import Criterion
from tests.annotation.devtools import CHROMIUM, Browser
from tests.servers import label_studio

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]

MARKDOWN = """# Title

```python
def f(x):
    return x  # <b>not bold</b>
```

- one
- two

$$\\frac{a}{b} = \\sum_{i} x_i$$"""
ATTACKS = """<script>window.ran=1;alert(1)</script><img src=//127.0.0.1:9/i onerror="window.ran=2">
<svg onload="window.ran=3"><animate onbegin="window.ran=3"></svg><details open ontoggle="window.ran=4">
<a href="javascript:window.ran=5">x</a><iframe srcdoc="<script>parent.ran=6</script>"></iframe>
</style></textarea><style>@import '//127.0.0.1:9/c';</style><body onload="window.ran=7">
[x](javascript:window.ran=8) ![x](//127.0.0.1:9/m) ${window.ran=9} {{constructor.constructor('ran=10')()}} $first
\u202eright to left\u202c \u05d0\u05d1 zero\u200b\u200dwidth\ufeff \U0001f600 the wrong words end"""

ITEMS: dict[str, Item] = {
    "pairwise": PairItem(f"Write f.\n\n{ATTACKS}", ATTACKS, MARKDOWN),
    "steps": StepsItem(ATTACKS, (MARKDOWN, ATTACKS)),
    "spans": SpansItem(ATTACKS, f"{MARKDOWN}\n{ATTACKS}"),
    "rubric": RubricItem(
        ATTACKS, tuple(Criterion(kind="principle", text=text) for text in (ATTACKS, MARKDOWN))
    ),
}


@dataclass(frozen=True)
class Site:
    """A server with a project and one task of each kind."""

    server: Server
    tasks: dict[str, tuple[int, int]]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return _ask(self.server, method, path, body)

    def task(self, kind: str) -> Any:
        return self.ask("GET", f"/api/tasks/{self.tasks[kind][1]}/")

    def add(self, kind: str, item: Item, order: str = "ab") -> None:
        settings = {"title": kind, "label_config": KINDS[kind].config(QuestionConfig())}
        project = self.ask("POST", "/api/projects/", settings)["id"]
        self.push(kind, project, item, order)

    def push(self, kind: str, project: int, item: Item, order: str = "ab") -> None:
        path = f"/api/projects/{project}/import?return_task_ids=true"
        made = self.ask("POST", path, [{"data": KINDS[kind].data(item, order)}])
        self.tasks[kind] = (project, made["task_ids"][0])


def _ask(server: Server, method: str, path: str, body: Any = None) -> Any:
    head = {
        "Authorization": f"Token {server.account.token}",
        "Content-Type": "application/json",
    }
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, sent, head, method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with label_studio.server(tmp_path_factory.mktemp("server") / "data") as server:
        found = Site(server, {})
        for kind, item in ITEMS.items():
            # The attacks are shown first, though a is the second response that people see.
            found.add(kind, item, "ba" if kind == "pairwise" else "ab")
        yield found


async def log_in(page: Browser, site: Site) -> None:
    account = site.server.account
    await page.go(f"{site.server.url}/user/login/")
    await page.until("!!document.querySelector('input[name=password]')")
    for name, value in (("email", account.user), ("password", account.password)):
        await page.run(f"document.querySelector('input[name={name}]').value={json.dumps(value)}")
    await page.run("document.querySelector('form').submit()")
    await page.until("!location.pathname.includes('login') && document.readyState == 'complete'")


async def open_task(page: Browser, site: Site, kind: str) -> None:
    project, task = site.tasks[kind]
    page.requests.clear()
    await page.go(f"{site.server.url}/projects/{project}/data?task={task}")
    ready = "!!document.querySelector('.pf-text .lsf-htx-richtext')?.innerText"
    await page.until(f"{ready} && document.body.innerText.includes('Submit')", 120)
    await asyncio.sleep(2)  # it listens to keys a little after it is shown
    await page.run(f"window.switches = {RADIOS}")


async def press(page: Browser, key: str, script: str) -> None:
    """Press a key and wait until the expression is true. Pressed again, it would be undone."""
    for _ in range(3):
        await page.key(key)
        with contextlib.suppress(AssertionError):
            return await page.until(script, 20)
    raise AssertionError(f"{key} does nothing")


RADIOS = "document.querySelectorAll('input[type=radio]:checked').length"


def checked(count: int) -> str:
    """So many choices are made; the page has switches of its own, which are radio buttons, too."""
    return f"{RADIOS} == window.switches + {count}"


async def assert_nothing_ran(page: Browser, site: Site) -> None:
    await asyncio.sleep(1)  # what is loaded late, too
    assert await page.run("typeof window.ran") == "undefined"
    assert page.dialogs == []
    away = [u for u in page.requests if not u.startswith((site.server.url, "data:", "blob:"))]
    assert away == []
    inside = "'.pf-text :is(script,img,svg,iframe,a,details,style,animate,textarea)'"
    assert await page.run(f"document.querySelectorAll({inside}).length") == 0


async def submitted(site: Site, kind: str) -> Any:
    for _ in range(100):
        task = await asyncio.to_thread(site.task, kind)
        if task["annotations"]:
            return task
        await asyncio.sleep(0.2)
    raise AssertionError("no annotation arrived")


SHOWN = "[...document.querySelectorAll('.pf-text .lsf-htx-richtext')].map(e => e.innerText)"


def test_a_pair_is_rated_with_the_keyboard_and_the_vote_arrives(site: Site, tmp_path: Path) -> None:
    async def scene() -> Any:
        async with Browser(tmp_path) as page:
            await log_in(page, site)
            await open_task(page, site, "pairwise")
            await page.picture(tmp_path / "pairwise.png")
            shown = await page.run(SHOWN)
            await press(page, "2", checked(1))
            await press(page, "e", checked(2))  # the first response's helpfulness: 3
            await page.run("document.querySelector('textarea').focus()")
            await page.type("It is <b>right</b>\nand short")
            await page.run("document.activeElement.blur()")
            await page.picture(tmp_path / "rated.png")
            await page.key("Enter", control=True)
            task = await submitted(site, "pairwise")
            await assert_nothing_ran(page, site)
            return shown, task

    shown, task = asyncio.run(scene())
    # Line by line as written: Markdown, code and LaTeX can be read.
    assert shown[1].split("\n") == MARKDOWN.split("\n")
    assert shown[2].split("\n") == ATTACKS.split("\n")
    (annotation,) = task["annotations"]
    read = KINDS["pairwise"].read(annotation["result"], task["data"], "ba")
    assert read == [
        # First, that is b, is better.
        Answer("pair", "pair", -2 / 3, reason="It is <b>right</b>\nand short"),
        Answer("b", "criterion", 0.75, criterion="helpfulness"),
    ]
    assert annotation["lead_time"] > 0


def test_an_unanswered_question_is_not_taken(site: Site, tmp_path: Path) -> None:
    async def scene() -> str:
        async with Browser(tmp_path) as page:
            await log_in(page, site)
            await open_task(page, site, "steps")
            await press(page, "1", checked(1))
            await page.key("Enter", control=True)
            await page.until("document.body.innerText.includes('Please answer')", 20)
            await page.picture(tmp_path / "refused.png")
            return str(await page.run("document.body.innerText"))

    assert "each step" in asyncio.run(scene())
    assert site.task("steps")["annotations"] == []


def test_a_span_is_marked(site: Site, tmp_path: Path) -> None:
    find = """(() => {
        const root = document.querySelectorAll('.lsf-htx-richtext')[1];
        const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        for (let node; (node = walk.nextNode());) {
            const at = node.data.indexOf('wrong words');
            if (at < 0) continue;
            node.parentElement.scrollIntoView({block: 'center'});
            const range = document.createRange();
            range.setStart(node, at); range.setEnd(node, at + 11);
            const box = range.getBoundingClientRect();
            return [box.left, box.right, box.top + box.height / 2];
        }})()"""

    async def scene() -> Any:
        async with Browser(tmp_path) as page:
            await log_in(page, site)
            await open_task(page, site, "spans")
            await assert_nothing_ran(page, site)
            await press(
                page,
                "2",
                "!!document.querySelector('[class*=label_selected], .lsf-label_selected')",
            )
            left, right, y = await page.run(find)
            common = {"button": "left", "clickCount": 1, "y": y}
            mouse = "Input.dispatchMouseEvent"
            await page.send(mouse, type="mousePressed", x=left + 1, **common)
            for x in ((left + right) / 2, right - 1):
                await page.send(mouse, type="mouseMoved", x=x, buttons=1, button="left", y=y)
            await page.send(mouse, type="mouseReleased", x=right - 1, **common)
            await page.until("!!document.querySelector('.htx-highlight')")
            await press(page, "m", checked(1))
            await page.picture(tmp_path / "span.png")
            await page.key("Enter", control=True)
            return await submitted(site, "spans")

    task = asyncio.run(scene())
    read = KINDS["spans"].read(task["annotations"][0]["result"], task["data"])
    assert isinstance(read, list)
    assert read[0] == Answer("response", "response", 0.0)
    (error,) = read[1:]
    assert error.span is not None
    # Characters are counted, also behind those that a browser holds as two.
    assert task["data"]["response"][slice(*error.span)] == "wrong words"
    assert error.criterion == "Wrong reasoning"


@pytest.mark.parametrize("kind", ["steps", "rubric"])
def test_hostile_texts_run_nothing(site: Site, tmp_path: Path, kind: str) -> None:
    async def scene() -> Any:
        async with Browser(tmp_path) as page:
            await log_in(page, site)
            await open_task(page, site, kind)
            await assert_nothing_ran(page, site)
            await page.picture(tmp_path / f"{kind}.png")
            return await page.run(SHOWN)

    shown = asyncio.run(scene())
    assert {text.split("\n")[0] for text in shown} == {
        ATTACKS.split("\n")[0],
        MARKDOWN.split("\n")[0],
    }
    assert len(shown) == 3


def test_a_megabyte_of_hostile_text_runs_nothing(site: Site, tmp_path: Path) -> None:
    text = (ATTACKS + "\n") * (2**20 // len(ATTACKS) + 1)
    site.add("pairwise", PairItem("Q", text, "short"))

    async def scene() -> Any:
        async with Browser(tmp_path) as page:
            await log_in(page, site)
            await open_task(page, site, "pairwise")
            await assert_nothing_ran(page, site)
            await page.picture(tmp_path / "large.png")
            return await page.run(SHOWN)

    shown = asyncio.run(scene())
    assert shown[1].endswith(f"[{len(text) - LONGEST:,} more characters are not shown]")
