"""The local engine continues exactly the tokens that it is given."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.engines.base import Reply, Request, Sampling
from pipelines.engines.local import LocalConfig, LocalEngine
from pipelines.process.splitting import split
from schemas.errors import BadReply
from schemas.records import Message, Response
from tests.pipelines import rows
from tests.pipelines.engines.tiny_tokenizers import END, byte_level

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

POLICY = Path(__file__).parents[3] / "data" / "policy"
TEMPLATE = "{{ messages[0]['content'] }}\nSt"
"""What it ends in joins with a prefix that begins with `ep`: `Step` is one token."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    """A random Llama with a byte-level tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), eos_token=END, pad_token=END, chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LocalEngine(LocalConfig(model=str(folder), device="cpu", threads=1))


def ask(text: str, prefix: str = "", ids: tuple[int, ...] = ()) -> Request:
    sampling = Sampling(temperature=0.0, max_tokens=12)
    return Request((Message(role="user", content=text),), sampling, 0, prefix, prefix_ids=ids)


def response(text: str) -> Response:
    return rows.response("p", 0, text)


def answers(engine: LocalEngine, *requests: Request) -> list[Reply | BaseException]:
    async def main() -> list[Reply | BaseException]:
        async with engine:
            asked = (engine.complete(r) for r in requests)
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(main())


def test_the_tokens_given_are_those_continued(engine: LocalEngine) -> None:
    """Here the prompt and the prefix together are tokenised otherwise than apart."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(engine.config.model)
    model = AutoModelForCausalLM.from_pretrained(engine.config.model, dtype=torch.float64).eval()
    prefix = "ep eg"
    own = engine.tokens(prefix)
    assert own is not None
    letters = tuple(tokenizer.convert_tokens_to_ids(["e", "p", "Ġ", "e", "g"]))
    assert letters != own.ids
    start = tuple(tokenizer("Go\nSt", add_special_tokens=False)["input_ids"])
    joined = tuple(tokenizer("Go\nSt" + prefix, add_special_tokens=False)["input_ids"])
    prompts = [joined, (*start, *own.ids), (*start, *letters)]
    requests = [ask("Go", prefix, ids) for ids in ((), own.ids, letters)]
    for prompt, reply in zip(prompts, answers(engine, *requests), strict=True):
        assert isinstance(reply, Reply)
        with torch.no_grad():
            written = model.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=0
            )[0, len(prompt) :].tolist()
            logits = model(torch.tensor([[*prompt, *written]])).logits[0, len(prompt) - 1 : -1]
        picked = logits.log_softmax(-1)[range(len(written)), written]
        assert (reply.prompt_tokens, reply.completion_tokens) == (len(prompt), len(written))
        assert reply.logprob == pytest.approx(float(picked.sum()), abs=1e-4)
    assert len({prompt for prompt in prompts}) == 3


def test_the_decoder_reads_the_prompts_tokens_and_then_the_prefixs(engine: LocalEngine) -> None:
    from pipelines.engines.local_model import Job, Model

    answers(engine, ask("x"))
    model = engine._model
    assert isinstance(model, Model)
    row = model.row(Job(ask("x", " 2", (5, 6, 7)), "x\nSt", 0))
    assert row.prompt == (*model._tokens("x\nSt"), 5, 6, 7)


def test_the_context_counts_the_prefixs_tokens(engine: LocalEngine) -> None:
    [long] = answers(engine, ask("x", " 2" * 40, (5,) * 64))
    assert isinstance(long, BadReply) and long.code == "too_long"


def test_the_bundled_policy_goes_on_as_it_had_token_for_token_and_as_text() -> None:
    """It has a token a character: what was asked as text before is answered the same by tokens."""
    engine = LocalEngine(LocalConfig(model=str(POLICY), device="cpu", threads=1))
    lines = (POLICY.parent / "prompts.jsonl").read_text().splitlines()[:12]
    longest = Sampling(temperature=0.0, max_tokens=96)
    questions = [replace(ask(json.loads(line)["prompt"]), sampling=longest) for line in lines]
    as_text, as_tokens, rests = [], [], []
    for question, whole in zip(questions, answers(engine, *questions), strict=True):
        assert isinstance(whole, Reply) and whole.finish_reason == "stop"
        tokens = engine.tokens(whole.text)
        assert tokens is not None
        trajectory = split(response(whole.text), "lines", tokens)
        assert trajectory is not None
        for end, count in zip(trajectory.ends[:-1], trajectory.token_ends, strict=False):
            as_text.append(replace(question, prefix=whole.text[:end]))
            as_tokens.append(replace(as_text[-1], prefix_ids=tokens.ids[:count]))
            rests.append(whole.text[end:])
    by_text, by_tokens = answers(engine, *as_text), answers(engine, *as_tokens)
    assert by_text == by_tokens and len(rests) > 24
    assert [reply.text for reply in by_tokens if isinstance(reply, Reply)] == rests
