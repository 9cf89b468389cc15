import asyncio
import enum
import importlib.util
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.engines.base import Request, Sampling, request_seed
from pipelines.engines.vllm import VLLMConfig, VLLMEngine, sampling_params
from schemas.errors import EngineError, MissingExtra
from schemas.records import Message

POLICY = Path(__file__).parents[3] / "data" / "policy"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    return path


@pytest.fixture
def stand_in(monkeypatch):
    """The names of `vllm.sampling_params` that are used, as plain holders of their arguments."""
    module = types.ModuleType("vllm.sampling_params")
    module.SamplingParams = types.SimpleNamespace
    module.StructuredOutputsParams = types.SimpleNamespace
    module.RequestOutputKind = enum.Enum("RequestOutputKind", ["FINAL_ONLY"])
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", module)
    return module


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_one_line_says_how_to_add_it(folder):
    async def main():
        async with VLLMEngine(VLLMConfig(model=str(folder))):
            pass

    with pytest.raises(MissingExtra, match=r"^vllm is not installed; .*'prefinery\[vllm\]'$"):
        asyncio.run(main())


def test_it_answers_only_while_entered(folder):
    request = Request((Message(role="user", content="x"),), Sampling())
    with pytest.raises(EngineError, match="not running"):
        asyncio.run(VLLMEngine(VLLMConfig(model=str(folder))).complete(request))


def test_identity_is_known_without_vllm_and_leaves_speed_settings_out(folder):
    def identity(**settings):
        return VLLMEngine(VLLMConfig(model=str(folder), **settings)).identity

    base = identity()
    assert (base.kind, base.model, base.endpoint) == ("vllm", "tiny", "local")
    fast = identity(max_num_seqs=8, gpu_memory_utilization=0.5, tensor_parallel_size=2)
    assert fast == base
    assert identity(dtype="bfloat16").digest != base.digest
    assert identity(max_model_len=512).digest != base.digest
    (folder / "chat_template.jinja").write_text("other")
    changed = identity()
    assert changed.template != base.template
    assert changed.revision != base.revision


def test_a_request_becomes_sampling_params(stand_in):
    sampling = Sampling(
        temperature=0.5, top_p=0.9, top_k=7, max_tokens=100, stop=("\n", "END"), seed=3
    )
    message = Message(role="user", content="x")
    schema = {"type": "object"}
    request = Request((message,), sampling, sample=2, schema=json.dumps(schema))
    params = sampling_params(request, "identity", room=40)
    assert vars(params) == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "max_tokens": 40,
        "stop": ["\n", "END"],
        "seed": request_seed("identity", request),
        "logprobs": 0,
        "structured_outputs": types.SimpleNamespace(json=schema),
        "output_kind": stand_in.RequestOutputKind.FINAL_ONLY,
    }
    plain = sampling_params(Request((message,), Sampling(max_tokens=5)), "identity", room=40)
    assert (plain.max_tokens, plain.stop, plain.structured_outputs) == (5, None, None)
    other = sampling_params(Request((message,), sampling, sample=3), "identity", room=40)
    assert other.seed != params.seed


def test_a_prefixs_tokens_follow_those_of_the_prompt(stand_in, monkeypatch):
    """Against a stand-in for vLLM's engine that keeps what it is given."""
    AutoTokenizer = pytest.importorskip("transformers").AutoTokenizer
    exceptions = types.ModuleType("vllm.exceptions")
    exceptions.VLLMValidationError = type("VLLMValidationError", (Exception,), {})
    failures = types.ModuleType("vllm.v1.engine.exceptions")
    failures.EngineDeadError = failures.EngineGenerateError = type("Dead", (Exception,), {})
    monkeypatch.setitem(sys.modules, "vllm.exceptions", exceptions)
    for name in ("vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.exceptions", failures)
    given = []

    class Taking:
        model_config = types.SimpleNamespace(max_model_len=512)

        async def generate(self, prompt, params, request_id):
            given.append(prompt)
            answer = types.SimpleNamespace(
                text="5", finish_reason="stop", token_ids=[25], cumulative_logprob=-0.5
            )
            yield types.SimpleNamespace(outputs=[answer])

    engine = VLLMEngine(VLLMConfig(model=str(POLICY)))
    tokens = engine.tokens("3+4=7\n")  # before it is entered
    engine._llm, engine._tokenizer = Taking(), AutoTokenizer.from_pretrained(POLICY)
    question = Request((Message(role="user", content="3+4-2"),), Sampling())

    async def main():
        return [
            await engine.complete(replace(question, prefix="3+4=7\n")),
            await engine.complete(replace(question, prefix="3+4=7\n", prefix_ids=tokens.ids)),
            await engine.complete(replace(question, prefix="3+4=7\n", prefix_ids=(9, 9))),
        ]

    replies = asyncio.run(main())
    text, same, other = (prompt["prompt_token_ids"] for prompt in given)
    start = engine._tokenizer.encode("Q: 3+4-2\nA: ", add_special_tokens=False)
    assert text == same == [*start, *tokens.ids]
    assert other == [*start, 9, 9]
    assert [reply.prompt_tokens for reply in replies] == [len(text), len(text), len(other)]
    assert {prompt["type"] for prompt in given} == {"token"}
