import asyncio
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from pipelines.engines.base import Request, Sampling
from pipelines.engines.local import LocalConfig, LocalEngine
from schemas.errors import BadReply, EngineError
from schemas.records import Message

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

BUNDLED = Path(__file__).parents[3] / "data" / "policy"
EOS = "<|end|>"
TEMPLATE = (
    "{%- for message in messages -%}{{ message['role'] + ': ' + message['content'] + '\\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}"
)


def save_model(folder, *, template=TEMPLATE, seed=0):
    """A random character-level Llama; its head is sharpened so that text varies but ends."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    characters = ["\n", *map(chr, range(32, 127))]
    vocab = {token: i for i, token in enumerate([EOS, *characters])}
    bpe = Tokenizer(BPE(vocab=vocab, merges=[], unk_token=EOS))
    bpe.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=EOS, eos_token=EOS, chat_template=template
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocab),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            max_position_embeddings=160,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder):
    return LocalEngine(LocalConfig(model=str(folder), device="cpu", threads=1))


def ask(text, sample=0, prefix="", schema=None, **sampling):
    sampling = Sampling(**{"max_tokens": 40, "seed": 3, **sampling})
    return Request((Message(role="user", content=text),), sampling, sample, prefix, schema)


def answer(engine, requests):
    async def main():
        async with engine:
            return await asyncio.gather(
                *(engine.complete(r) for r in requests), return_exceptions=True
            )

    return asyncio.run(main())


def in_batches(engine, requests, size):
    async def main():
        replies = []
        async with engine:
            for i in range(0, len(requests), size):
                replies += await asyncio.gather(*map(engine.complete, requests[i : i + size]))
        return replies

    return asyncio.run(main())


def requests_of_all_kinds(count):
    kinds = [
        {},
        {"top_k": 5},
        {"top_p": 0.8},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
        {"stop": ("e", "\n")},
        {"temperature": 0.0},
    ]
    rng = np.random.default_rng(0)
    return [
        ask(
            "x" * int(rng.integers(0, 30)) + str(i // 3),
            sample=i % 3,
            prefix="so" * (i % 4),
            **{"max_tokens": int(rng.integers(1, 90)), **kinds[i % len(kinds)]},
        )
        for i in range(count)
    ]


def test_an_answer_does_not_depend_on_the_batch(engine):
    requests = requests_of_all_kinds(120)
    alone = in_batches(engine, requests, 1)
    assert len({r.text for r in alone}) > 80
    assert {r.finish_reason for r in alone} == {"stop", "length"}
    for size in (3, 17, 120):
        assert in_batches(engine, requests, size) == alone
    order = np.random.default_rng(1).permutation(len(requests))
    shuffled = in_batches(engine, [requests[i] for i in order], 17)
    assert shuffled == [alone[i] for i in order]
    small = LocalEngine(LocalConfig(model=engine.config.model, device="cpu", batch=5, threads=1))
    assert in_batches(small, requests, 120) == alone


def test_an_answer_does_not_depend_on_what_was_read_before(engine):
    """Warm against cold, and a cache that holds about a tenth of what is asked."""
    requests = requests_of_all_kinds(240)
    cold = in_batches(engine, requests[:120], 120) + in_batches(engine, requests[120:], 120)
    # 1,024 tokens of this model: 2 layers, 2 heads of 16, keys and values, 8 bytes a number.
    tight = LocalEngine(LocalConfig(model=engine.config.model, cache_mib=1, threads=1))
    assert sum(r.prompt_tokens for r in cold) > 8000
    again = [i for i in range(240) for _ in range(2)]
    order = np.random.default_rng(2).permutation(again)
    for one in (engine, tight):
        assert in_batches(one, requests + requests, 31) == cold + cold
        assert in_batches(one, [requests[i] for i in order], 64) == [cold[i] for i in order]


def test_logprob_and_greedy_are_those_of_a_plain_forward(engine):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(engine.config.model)
    model = AutoModelForCausalLM.from_pretrained(engine.config.model, dtype=torch.float64).eval()
    requests = [ask(f"q{i}", prefix="p", temperature=i % 2) for i in range(8)]
    for request, reply in zip(requests, answer(engine, requests), strict=True):
        messages = [m.model_dump() for m in request.messages]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text + "p", add_special_tokens=False)["input_ids"]
        wrote = tokenizer(reply.text, add_special_tokens=False)["input_ids"]
        wrote += [tokenizer.eos_token_id] * (reply.finish_reason == "stop")
        assert (reply.prompt_tokens, reply.completion_tokens) == (len(prompt), len(wrote))
        with torch.no_grad():
            logits = model(torch.tensor([prompt + wrote])).logits[0, len(prompt) - 1 : -1]
        picked = logits.log_softmax(-1)[range(len(wrote)), wrote]
        assert reply.logprob == pytest.approx(float(picked.sum()), abs=1e-4)
        if request.sampling.temperature == 0:
            assert logits.argmax(-1).tolist() == wrote


def test_samples_follow_the_model_distribution(engine):
    """First tokens of many samples against the model's own probabilities."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    count = 1500
    replies = answer(engine, [ask("dist", sample=i, max_tokens=1) for i in range(count)])
    tokenizer = AutoTokenizer.from_pretrained(engine.config.model)
    model = AutoModelForCausalLM.from_pretrained(engine.config.model, dtype=torch.float64).eval()
    prompt = tokenizer("user: dist\nassistant: ", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        probs = model(torch.tensor([prompt])).logits[0, -1].softmax(-1).numpy()
    ids = [tokenizer(r.text, add_special_tokens=False)["input_ids"] or [0] for r in replies]
    seen = np.bincount([i[0] for i in ids], minlength=len(probs)) / count
    assert np.abs(seen - probs).max() < 4 * np.sqrt(0.25 / count)
    assert 0.5 * np.abs(seen - probs).sum() < 0.1


def test_restrict_against_a_distribution_worked_out_by_hand():
    from pipelines.engines.decode import restrict

    probs = torch.tensor([[0.1, 0.4, 0.2, 0.3]] * 6, dtype=torch.float64)
    top_k = torch.tensor([0, 2, 0, 3, 1, 0])
    # Row 3: of the three likeliest (.4 .3 .2, together .9) half of .9 is reached with two.
    top_p = torch.tensor([1.0, 1.0, 0.6, 0.5, 1.0, 0.0], dtype=torch.float64)
    expected = [
        [0.1, 0.4, 0.2, 0.3],
        [0.0, 0.4, 0.0, 0.3],
        [0.0, 0.4, 0.0, 0.3],
        [0.0, 0.4, 0.0, 0.3],
        [0.0, 0.4, 0.0, 0.0],
        [0.0, 0.4, 0.0, 0.0],
    ]
    assert restrict(probs, top_k, top_p).tolist() == expected


def test_draw_inverts_the_cdf():
    from pipelines.engines.decode import draw

    probs = torch.tensor([0.25, 0.0, 0.5, 0.25, 0.0], dtype=torch.float64)
    uniforms = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 1 - 2**-53, 0.9], dtype=torch.float64)
    rows = len(uniforms)
    temperature = torch.ones(rows, dtype=torch.float64)
    temperature[-1] = 0.0
    none = torch.zeros(rows, dtype=torch.int64)
    tokens, logprobs = draw(
        probs.log().expand(rows, -1), temperature, none, none.double() + 1, uniforms, filtered=False
    )
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3, 2]
    assert logprobs.exp().tolist() == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.25, 0.25, 0.5])


def test_temperature_scales_the_draw_but_not_the_logprob():
    from pipelines.engines.decode import draw

    logits = torch.tensor([[0.0, np.log(3.0)]], dtype=torch.float64)
    half, none = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0])
    one = torch.tensor([1.0], dtype=torch.float64)
    # At temperature .5 the odds 1:3 become 1:9, so a uniform of .11 takes the second token.
    for uniform, token in ((0.09, 0), (0.11, 1)):
        tokens, logprobs = draw(
            logits, half, none, one, torch.tensor([uniform], dtype=torch.float64), filtered=False
        )
        assert tokens.tolist() == [token]
        assert logprobs.exp().tolist() == pytest.approx([0.75 if token else 0.25])


def test_a_stop_string_cuts_and_stops(engine):
    free = answer(engine, [ask(f"s{i}", temperature=0.0, max_tokens=60) for i in range(6)])
    for i, reply in enumerate(free):
        stop = reply.text[4:6]
        [cut] = answer(
            engine, [ask(f"s{i}", temperature=0.0, max_tokens=60, stop=(stop, "never there"))]
        )
        at = reply.text.index(stop)
        assert cut.text == reply.text[:at]
        assert cut.finish_reason == "stop"
        assert cut.completion_tokens == at + 2


def test_a_prefix_is_continued_exactly(engine):
    [whole] = answer(engine, [ask("go", temperature=0.0, max_tokens=30)])
    [rest] = answer(engine, [ask("go", temperature=0.0, max_tokens=20, prefix=whole.text[:10])])
    assert whole.text == whole.text[:10] + rest.text
    assert rest.prompt_tokens == whole.prompt_tokens + 10


def test_the_context_bounds_prompt_and_answer(engine):
    replies = answer(engine, [ask("y" * 200), ask("y" * 130, max_tokens=500), ask("short")])
    assert isinstance(replies[0], BadReply)
    assert replies[0].code == "too_long"
    assert "the context has 160" in replies[0].detail
    assert replies[1].prompt_tokens + replies[1].completion_tokens <= 160
    assert replies[2].text


def test_a_schema_is_refused_in_one_line(engine):
    [error] = answer(engine, [ask("x", schema="{}")])
    assert isinstance(error, EngineError)
    assert str(error).startswith("the local engine cannot hold a reply to a JSON schema")


def test_a_failing_model_fails_every_waiting_caller_and_the_next(folder):
    engine = LocalEngine(LocalConfig(model=str(folder), device="cpu", batch=2, threads=1))

    async def main():
        async with engine:
            await engine.complete(ask("fine", max_tokens=2))

            def broken(*args, **kwargs):
                raise RuntimeError("out of memory\nmuch more text")

            engine._model.model.forward = broken
            failed = await asyncio.gather(
                *(engine.complete(ask(str(i))) for i in range(7)), return_exceptions=True
            )
            late = await asyncio.gather(engine.complete(ask("late")), return_exceptions=True)
        return failed, late

    failed, late = asyncio.run(main())
    assert {str(e) for e in failed} == {
        "the local model failed: RuntimeError: out of memory; lower `batch` or `max_context`"
    }
    assert all(isinstance(e, EngineError) for e in failed)
    assert str(late[0]) == "the local engine is not running; use it inside `async with`"


def test_cancelling_frees_the_place_and_leaving_is_prompt(engine):
    async def main():
        async with engine:
            slow = [asyncio.create_task(engine.complete(ask(str(i)))) for i in range(4)]
            await asyncio.sleep(0.02)
            for task in slow:
                task.cancel()
            gone = await asyncio.gather(*slow, return_exceptions=True)
            after = await engine.complete(ask("after"))
            left = asyncio.create_task(engine.complete(ask("left", max_tokens=10_000)))
            await asyncio.sleep(0)
        return gone, after, await asyncio.gather(left, return_exceptions=True)

    gone, after, left = asyncio.run(main())
    assert all(isinstance(e, asyncio.CancelledError) for e in gone)
    assert after == answer(engine, [ask("after")])[0]
    assert "was closed" in str(left[0]) or left[0].text is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("local-engine")]


def test_one_engine_serves_several_event_loops(engine):
    requests = [ask(f"loop{i}") for i in range(4)]
    expected = answer(engine, requests)
    found = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: answer(engine, requests)}))
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: expected, 1: expected, 2: expected}


def test_the_event_loop_stays_free(engine):
    async def main():
        beats = 0
        async with engine:
            work = asyncio.gather(*(engine.complete(ask(str(i), max_tokens=60)) for i in range(40)))
            while not work.done():
                await asyncio.sleep(0.001)
                beats += 1
            await work
        return beats

    assert asyncio.run(main()) > 5


def test_identity_covers_content_template_and_dtype(tmp_path, folder):
    import hashlib

    def identity(path, **settings):
        return LocalEngine(LocalConfig(model=str(path), **settings)).identity

    base = identity(folder)
    assert (base.kind, base.endpoint, base.model) == ("local", "local", folder.name)
    assert base.template == hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert base.extra == {"dtype": "float64"}
    assert identity(folder, batch=1, cache_mib=3, threads=2, device="cpu") == base
    assert identity(folder, dtype="float32").digest != base.digest
    assert identity(folder, max_context=99).digest != base.digest
    other = save_model(tmp_path / "other", seed=1)
    assert identity(other).revision != base.revision


def test_a_model_that_cannot_be_used_is_one_clear_line(tmp_path):
    def line(path):
        async def main():
            async with LocalEngine(LocalConfig(model=str(path), device="cpu")):
                pass

        with pytest.raises(EngineError) as caught:
            asyncio.run(main())
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "does not exist" in line(tmp_path / "nowhere")
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "no config.json" in line(bare)
    untold = save_model(tmp_path / "untold")
    (untold / "chat_template.jinja").unlink()
    assert "no chat template" in line(untold)
    torn = save_model(tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert line(torn).startswith("cannot load the model")
    pickled = save_model(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert line(pickled).startswith("cannot load the model")


@pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the policy is not there")
def test_the_bundled_policy_answers_the_same_in_any_batch():
    engine = LocalEngine(LocalConfig(model=str(BUNDLED), device="cpu", threads=1))
    lines = (BUNDLED.parent / "prompts.jsonl").read_text().splitlines()[:30]
    texts = [json.loads(line)["prompt"] for line in lines]
    requests = [ask(text, sample=i, max_tokens=72) for text in texts for i in range(2)]
    together = in_batches(engine, requests, 60)
    assert in_batches(engine, requests, 7) == together
    assert sum(r.finish_reason == "stop" for r in together) > 50


@pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the policy is not there")
def test_bfloat16_in_a_large_batch_stays_near_float64():
    """What a GPU is asked for, on the CPU: greedy answers that differ do so by rounding."""
    lines = (BUNDLED.parent / "prompts.jsonl").read_text().splitlines()[:40]
    requests = [ask(json.loads(line)["prompt"], temperature=0.0, max_tokens=72) for line in lines]
    exact, rounded = (
        answer(LocalEngine(LocalConfig(model=str(BUNDLED), batch=512, dtype=dtype)), requests)
        for dtype in ("float64", "bfloat16")
    )
    same = [(a, b) for a, b in zip(exact, rounded, strict=True) if a.text == b.text]
    assert len(same) >= 0.9 * len(requests)
    for a, b in same:
        assert a.logprob == pytest.approx(b.logprob, abs=0.05 + 0.05 * abs(a.logprob))
