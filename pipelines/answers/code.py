"""Solutions in code: found in a response, and unit tests that can check them."""

from __future__ import annotations

import ast
import re
import sys

_FENCE = re.compile(r"[ \t]{0,8}(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*")
_PYTHON = frozenset({"python", "python3", "py", "py3"})
_STARTS_CODE = re.compile(r"^(?:def|class|async def|import|from) [A-Za-z_]", re.MULTILINE)
MAX_TESTS_CHARS = 1_000_000
"""Longer test code is not read."""


def find_code(text: str, *, cut: bool = False) -> str | None:
    """Find a response's code: its last fenced Python block, else its last fenced block of any kind.

    A block that is not closed runs to the end of the text, but where the text was `cut` by a token
    limit it is unfinished: None. A text without any fence that has a line such as `def f` is taken
    as code as a whole.
    """
    blocks: list[tuple[str, str]] = []
    fence, kind = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        match = _FENCE.fullmatch(line)
        if fence and match and match[1].startswith(fence) and not match[2]:
            blocks.append((kind, "\n".join(lines)))
            fence = ""
        elif fence:
            lines.append(line)
        elif match:
            fence, kind, lines = match[1], match[2].casefold(), []
    if fence:
        if cut and (kind in _PYTHON or not any(found in _PYTHON for found, _ in blocks)):
            return None
        if not cut:
            blocks.append((kind, "\n".join(lines)))
    filled = [(kind, code) for kind, code in blocks if code.strip()]
    python = [code for kind, code in filled if kind in _PYTHON]
    if filled:
        return python[-1] if python else filled[-1][1]
    return text if not blocks and not cut and _STARTS_CODE.search(text) else None


def bad_tests(tests: str) -> str | None:
    """What keeps a text from being unit-test code for the sandbox; None if it will do.

    Tests are statements that run as they stand after the solution, such as asserts and calls of
    functions that assert. They are parsed here and not run.
    """
    if len(tests) > MAX_TESTS_CHARS:
        return f"it is longer than {MAX_TESTS_CHARS} characters"
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"Python says {type(error).__name__}"
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = ["." if node.level else node.module or "."]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names or top == "unittest":
                return f"it imports {name}; tests are asserts and use the standard library"
    passive = (
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.Pass,
    )
    for statement in tree.body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not isinstance(statement, passive) and not is_text:
            return None
    return "it tests nothing: no assert or call stands outside of its functions"
