"""What can go wrong, as one flat vocabulary.

UserError            the user can mend it: printed as one line, exit code 2, no traceback
  PlanError          a plan that does not validate
  SchemaError        a table that is not what its record says
  StoreError         a store that cannot be read or written
  MissingExtra       an optional package is not installed
  EngineError        an engine that cannot be used at all (wrong model, bad key)
    EngineDown       one that does not answer

BadReply             one request got no usable answer: it becomes a `Reject` row, never a crash
"""

from __future__ import annotations


class UserError(Exception):
    """A failure the user can mend. The message is one line: what is wrong and what to do."""


class PlanError(UserError):
    """A plan that does not validate."""


class SchemaError(UserError):
    """A table or file that does not hold what its record says."""


class StoreError(UserError):
    """A store that cannot be read or written."""


class EngineError(UserError):
    """An engine that cannot be used at all: every further request would fail the same way."""


class EngineDown(EngineError):
    """An engine that does not answer: the same request may succeed once it is up."""


class MissingExtra(UserError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; add it with: pip install 'prefinery[{extra}]'"
        )


class BadReply(Exception):
    """One request got no usable answer.

    `code` is a stable reason code for the `Reject` row: `empty_reply`, `not_json`,
    `bad_shape`, `cut_off`, `refused`, `too_long`, `wrong_model`, `bad_request`, `server_error`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
