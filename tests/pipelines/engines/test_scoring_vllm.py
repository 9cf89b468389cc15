"""Scoring with vLLM in this process, against a stand-in for its engine."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.base import Reply, Request, Sampling
from pipelines.engines.vllm import VLLMConfig, VLLMEngine, sampling_params
from schemas.errors import BadReply, EngineError
from schemas.records import Message

POLICY = Path(__file__).parents[3] / "data" / "policy"
ASK = Request((Message(role="user", content="q"),), Sampling(), scored="7\n#5")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The names of vLLM that are used, as plain holders of their arguments."""
    params: Any = types.ModuleType("vllm.sampling_params")
    params.SamplingParams = types.SimpleNamespace
    params.StructuredOutputsParams = types.SimpleNamespace
    params.RequestOutputKind = types.SimpleNamespace(FINAL_ONLY="final")
    exceptions: Any = types.ModuleType("vllm.exceptions")
    exceptions.VLLMValidationError = type("VLLMValidationError", (Exception,), {})
    failures: Any = types.ModuleType("vllm.v1.engine.exceptions")
    failures.EngineDeadError = failures.EngineGenerateError = type("Dead", (Exception,), {})
    for name in ("vllm", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for module in (params, exceptions, failures):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return params


class Telling:
    """Every token of a prompt but the first has -1/2 by its place."""

    model_config = types.SimpleNamespace(max_model_len=16)

    def __init__(self, tells: bool = True) -> None:
        self.tells = tells
        self.prompts: list[list[int]] = []

    async def generate(self, prompt: Any, params: Any, request_id: str) -> AsyncIterator[Any]:
        ids = prompt["prompt_token_ids"]
        self.prompts.append(ids)
        given = [None] + [
            {token: types.SimpleNamespace(logprob=-at / 2)} for at, token in enumerate(ids) if at
        ]
        yield types.SimpleNamespace(outputs=[], prompt_logprobs=given if self.tells else None)


def engine(llm: Telling) -> VLLMEngine:
    made = VLLMEngine(VLLMConfig(model=str(POLICY)))
    transformers = pytest.importorskip("transformers")
    made._llm, made._tokenizer = llm, transformers.AutoTokenizer.from_pretrained(POLICY)
    return made


def test_what_is_asked_of_vllm(stand_in: Any) -> None:
    params = sampling_params(replace(ASK, schema="{}"), "identity", room=9)
    assert vars(params) == {
        "temperature": 0.0,
        "max_tokens": 1,
        "prompt_logprobs": 0,
        "output_kind": stand_in.RequestOutputKind.FINAL_ONLY,
    }


def test_the_texts_tokens_follow_the_prompts_and_are_summed_alone(stand_in: Any) -> None:
    llm = Telling()
    made = engine(llm)
    found = asyncio.run(made.complete(ASK))
    assert found == Reply("", "stop", 8, 4, -(8 + 9 + 10 + 11) / 2)
    whole = made._tokenizer.encode("Q: q\nA: 7\n#5", add_special_tokens=False)
    assert llm.prompts == [whole]
    tokens = made.tokens("7\n")
    assert tokens is not None
    parts = [replace(ASK, prefix="7\n", scored="#5")]
    parts.append(replace(parts[0], prefix_ids=tokens.ids))
    for part in parts:
        again = asyncio.run(made.complete(part))
        assert again == Reply("", "stop", 10, 2, -(10 + 11) / 2)
    assert llm.prompts == [whole] * 3


def test_the_context_has_room_for_the_token_that_vllm_writes(stand_in: Any) -> None:
    made = engine(Telling())
    fits, long = replace(ASK, scored="1" * 7), replace(ASK, scored="1" * 8)
    assert asyncio.run(made.complete(fits)).completion_tokens == 7
    with pytest.raises(BadReply, match="too_long: prompt of 16 tokens; the context has 16"):
        asyncio.run(made.complete(long))


def test_without_log_probabilities_the_run_stops(stand_in: Any) -> None:
    with pytest.raises(EngineError, match="vLLM gives no log-probabilities"):
        asyncio.run(engine(Telling(tells=False)).complete(ASK))
