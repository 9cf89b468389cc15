"""A model's chat template, rendered on this side for servers asked through `/completions`.

A template is the model's own Jinja text, so it is run in Jinja's immutable sandbox with the
environment that transformers uses (`apply_chat_template`: trimmed blocks, loop controls, a plain
`tojson`, `raise_exception`, the `generation` tag). The clock (`strftime_now`) is left undefined:
the same messages give the same prompt on every day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.errors import BadReply, EngineError
from schemas.records import Message

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant wrote, for training masks: render what is inside."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance attribute

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment


@dataclass(frozen=True)
class ChatTemplate:
    """A compiled template; `tokens` holds the special tokens that its text refers to."""

    text: str
    tokens: dict[str, str]
    compiled: jinja2.Template

    @property
    def sha256(self) -> str:
        """64 hex digits of the template's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def render(self, messages: Iterable[Message]) -> str:
        """The prompt up to where the assistant's answer starts.

        Raises BadReply (`bad_request`) where the template refuses these messages.
        """
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.compiled.render(
                messages=turns, add_generation_prompt=True, tools=None, **self.tokens
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise BadReply("bad_request", f"the chat template refuses it: {error}") from error


def load_chat_template(where: str) -> ChatTemplate:
    """Read a `.jinja` file, or a model folder with `chat_template.jinja` or `tokenizer_config.json`.

    Special tokens come from the `tokenizer_config.json` of the same folder. Raises EngineError when
    there is no template, it does not compile, or it needs a special token that is not to be found.
    """
    path = Path(where)
    folder = path if path.is_dir() else path.parent
    config = _tokenizer_config(folder / "tokenizer_config.json")
    if path.is_dir():
        path = folder / "chat_template.jinja"
    try:
        text = path.read_text("utf-8") if path.is_file() else _configured(config, where)
        environment = _environment()
        names = jinja2.meta.find_undeclared_variables(environment.parse(text))
        compiled = environment.from_string(text)
    except (OSError, UnicodeDecodeError, jinja2.TemplateSyntaxError) as error:
        raise EngineError(f"{where}: no usable chat template: {error}") from error
    used = [name for name in SPECIAL_TOKENS if name in names]
    missing = [name for name in used if name not in config]
    if missing:
        raise EngineError(
            f"{where}: the chat template uses {', '.join(missing)}; put the model's "
            "tokenizer_config.json, with them, beside it"
        )
    # A token that the model states as null stays undefined, as in transformers.
    tokens = {name: value for name in used if (value := _token(config[name])) is not None}
    return ChatTemplate(text, tokens, compiled)


def _tokenizer_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise EngineError(f"{path}: is not a JSON object")
    return config


def _configured(config: dict[str, Any], where: str) -> str:
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        raise EngineError(
            f"{where}: no chat template; give a .jinja file, or a folder with chat_template.jinja "
            "or a tokenizer_config.json that holds one"
        )
    return template


def _token(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None
