import pytest

from pipelines.answers import equal, find, readable, why_unreadable

F = "def f(x):\n    return 2 * x"

FOUND = [
    (f"Here:\n```python\n{F}\n```\nDone.", F),
    (f"```py\n{F}\n```", F),
    (f"```Python3\n{F}\n```", F),
    (f"~~~python\n{F}\n~~~", F),
    (f"```python title='a.py'\n{F}\n```", F),
    (f"````python\n{F}\n# ```\n````", f"{F}\n# ```"),
    (f"```python\nold\n```\nBetter:\n```python\n{F}\n```", F),
    (f"```python\n{F}\n```\nIt prints\n```\n4\n```", F),
    (f"```\n{F}\n```", F),
    (f"```\nfirst\n```\n```\n{F}\n```", F),
    (f"```bash\npip install x\n```\n```\n{F}\n```", F),
    (f"  ```python\n{F}\n  ```", F),
    (f"```python\n{F}", F),
    (f"```python\n\n```\n```\n{F}\n```", F),
    (f"Sure.\n{F}", f"Sure.\n{F}"),
    (F, F),
    ("I would define a function f.", None),
    ("```python\n```", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "code"), FOUND)
def test_find_code(text, code):
    assert find(text, "code") == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"```python\n{F}\n```\nThis", F),
        (f"```python\n{F}", None),
        (f"```python\nold\n```\nBetter:\n```python\n{F}", None),
        (f"```python\n{F}\n```\nIt prints\n```\n4", F),
        (F, None),
    ],
)
def test_a_block_that_the_limit_cut_is_no_answer(text, code):
    assert find(text, "code", cut=True) == code


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (F, True),
        ("def f(x):\n    return x", False),
        ("def f(x: ", None),
        ("def g(x):\n    return x", False),
    ],
)
def test_equal_runs_the_tests(code, verdict):
    assert equal(code, "assert f(2) == 4", "code") is verdict


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("assert f(2) == 4", None),
        ("import math\ndef check(g):\n    assert g(2) == 4\ncheck(f)", None),
        ("for x in range(3):\n    assert f(x) == 2 * x", None),
        ("assert f(2) ==", "is no test code: Python says SyntaxError"),
        ("f(\0)", "is no test code: Python says"),
        ("-" * 10**5 + "1", "is no test code: Python says MemoryError"),
        ("def check(g):\n    assert g(2) == 4", "is no test code: it tests nothing"),
        ("'only text'", "is no test code: it tests nothing"),
        ("", "is no test code: it tests nothing"),
        ("import numpy\nassert f(2) == 4", "is no test code: it imports numpy"),
        ("from solution import f\nassert f(2) == 4", "is no test code: it imports solution"),
        ("from . import f\nassert f(2) == 4", "is no test code: it imports ."),
        ("import unittest\nunittest.main()", "is no test code: it imports unittest"),
        ("assert 1\n" * 200_000, "is no test code: it is longer than"),
    ],
)
def test_tests_that_can_be_used(tests, why):
    found = why_unreadable(tests, "code")
    assert found is None if why is None else found is not None and found.startswith(why)
    assert readable(tests, "code") is (why is None)


def test_a_reference_is_parsed_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    assert readable(f"open({str(mark)!r}, 'w')\nassert True", "code")
    assert not mark.exists()
