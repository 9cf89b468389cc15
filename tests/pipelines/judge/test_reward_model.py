"""Reward models as judges: tiny random ones here, and a loopback server that answers by rule."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from pipelines.judge import reward_model
from pipelines.judge.cases import Case, Opinions
from pipelines.judge.reward_model import RewardModelConfig, RewardServerConfig, judge, material
from pipelines.training.config import RewardConfig
from pipelines.training.reward import train_reward
from pipelines.training.scoring import RewardModel
from schemas.errors import EngineError, UserError
from schemas.records import Message, Pair, Preference, Prompt
from tests.pipelines.judge.rewarding import CASES, case_of, scores
from tests.pipelines.rows import response
from tests.pipelines.training.tiny import preference, write_base

CHARACTERS = ["\n", *map(chr, range(32, 127))]


def ask(config: Any, cases: list[Case] = CASES, told: list[int] | None = None) -> Opinions:
    def advance(rows: int, tokens: int) -> None:
        if told is not None:
            told.append(rows)

    return asyncio.run(judge("rm", config, cases, {}, 0, advance))


def llama(folder: Path, pad: str | None = "<|pad|>", labels: int = 1, **config: Any) -> Path:
    write_base(folder, pad=pad)
    base = LlamaConfig.from_pretrained(folder)
    made = LlamaConfig(**{**base.to_dict(), "num_labels": labels, **config})
    torch.manual_seed(1)
    LlamaForSequenceClassification(made).save_pretrained(folder)
    return folder


def bert(folder: Path) -> Path:
    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *CHARACTERS])}
    tokens = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokens.pre_tokenizer = Split("", "isolated")
    tokens.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        padding_side="left",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(2)
    BertForSequenceClassification(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=80,
            num_labels=1,
            initializer_range=0.3,
        )
    ).save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    """As many models of that family have it: the pad token is the end token, no chat template."""
    vocabulary = {t: i for i, t in enumerate(["<|end|>", "<|unk|>", *CHARACTERS])}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<|unk|>")),
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template="{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}",
    ).save_pretrained(folder)
    torch.manual_seed(3)
    GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=len(vocabulary),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=96,
            num_labels=1,
            initializer_range=0.3,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).save_pretrained(folder)
    return folder


def alone(folder: Path, case: Case, text: str) -> float:
    """What transformers' own forward gives a text that is a batch of one."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    question = case.prompt.messages[0].content
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        written = tokenizer.apply_chat_template(chat, tokenize=False)
        inputs = tokenizer(written, add_special_tokens=False, return_tensors="pt")
    else:
        inputs = tokenizer(question, text, return_tensors="pt")
    with torch.no_grad():
        return float(model(**{k: inputs[k] for k in tokenizer.model_input_names}).logits[0, 0])


@pytest.mark.parametrize("make", [llama, bert, gpt2])
@pytest.mark.parametrize("batch_tokens", [1, 150, 16_384])
def test_a_score_is_that_of_a_batch_of_one(
    make: Callable[[Path], Path], batch_tokens: int, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    told: list[int] = []
    found = ask(RewardModelConfig(model=str(folder), batch_tokens=batch_tokens), told=told)
    assert found.rejects == [] and sum(told) == len(CASES)
    by = scores(found)
    wanted = {r.id: alone(folder, case, r.text) for case in CASES[::3] for r in (case.a, case.b)}
    assert len({round(value, 4) for value in wanted.values()}) > 3  # it tells texts apart
    for unit, value in wanted.items():
        assert by[unit] == pytest.approx(value, abs=1e-5)


def test_votes_of_pairs_are_squashed_differences(tmp_path: Path) -> None:
    found = ask(RewardModelConfig(model=str(llama(tmp_path))))
    by = scores(found)
    pairs = [v for v in found.votes if v.unit_kind == "pair"]
    assert [v.unit for v in pairs] == [case.pair.id for case in CASES]
    for case, vote in zip(CASES, pairs, strict=True):
        a, b = by[case.a.id], by[case.b.id]
        assert a is not None and b is not None
        assert vote.value == pytest.approx(2 / (1 + math.exp(b - a)) - 1)
        assert vote.reason == f"a: {a:.4g}; b: {b:.4g}"
        assert (vote.order, vote.judge, vote.judge_kind) == (None, "rm", "reward_model")
    assert len(by) == len({r.id for case in CASES for r in (case.a, case.b)})


def test_what_is_too_long_is_not_cut(tmp_path: Path) -> None:
    folder = llama(tmp_path)  # a context of 96 tokens, one a character
    long, short = case_of("2+2?", "y" * 90, "4"), case_of("2+2?", "5", "4")
    found = ask(RewardModelConfig(model=str(folder)), [long, short])
    votes = {v.unit: v for v in found.votes}
    assert (votes[long.a.id].value, votes[long.a.id].reason) == (None, "too_long")
    assert (votes[long.pair.id].value, votes[long.pair.id].reason) == (None, "too_long")
    assert votes[long.b.id].value is not None and votes[short.pair.id].value is not None
    assert [(r.unit, r.stage, r.code) for r in found.rejects] == [(long.a.id, "judge", "too_long")]
    assert found.rejects[0].detail.endswith("the most is 96")
    fits = 96 - len("Q: 2+2?\nA: ") - 1
    edge = [case_of("2+2?", "y" * fits, "4"), case_of("2+2?", "y" * (fits + 1), "4")]
    by = scores(ask(RewardModelConfig(model=str(folder)), edge))
    assert by[edge[0].a.id] is not None and by[edge[1].a.id] is None
    narrow = ask(RewardModelConfig(model=str(folder), max_length=13), [short, edge[0]])
    assert scores(narrow)[short.a.id] is not None and scores(narrow)[edge[0].a.id] is None


def test_a_tokenizer_s_own_limit_holds(tmp_path: Path) -> None:
    found = ask(RewardModelConfig(model=str(bert(tmp_path))), [case_of("2+2?", "y" * 58, "4")])
    assert [r.detail for r in found.rejects] == ["rm: 65 tokens, the most is 64"]


def test_positions_that_a_model_leaves_unused_are_no_room(tmp_path: Path) -> None:
    """RoBERTa counts positions from its pad id + 1: 34 of them are 32 tokens."""
    bert(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"model_max_length": 10**30, "model_input_names": ["input_ids", "attention_mask"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=34,
            pad_token_id=1,
            num_labels=1,
        )
    ).save_pretrained(tmp_path)
    fits, long = case_of("q", "y" * 28, "y"), case_of("q", "y" * 29, "y")
    found = ask(RewardModelConfig(model=str(tmp_path)), [fits, long])
    assert scores(found)[fits.a.id] is not None
    assert [(r.unit, r.detail) for r in found.rejects] == [
        (long.a.id, "rm: 33 tokens, the most is 32")
    ]


def test_a_conversation_that_the_template_refuses_has_no_score(tmp_path: Path) -> None:
    told = Prompt(
        messages=(Message(role="system", content="s"), Message(role="user", content="q")),
        source="s",
    )
    one, two = response(told.id, 0, "a"), response(told.id, 1, "b")
    pair = Pair(prompt_id=told.id, response_a=one.id, response_b=two.id)
    found = ask(RewardModelConfig(model=str(llama(tmp_path))), [Case(told, pair, one, two)])
    assert {v.reason for v in found.votes} == {"bad_template"}
    assert [r.detail for r in found.rejects] == ["rm: no system turns"] * 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of reward training whose template writes a newline after the end token."""
    base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("out")
    template = (
        "{%- for m in messages -%}{{ m['content'] }}"
        "{%- if m['role'] == 'assistant' -%}{{ eos_token + '\\n' }}{%- endif -%}{%- endfor -%}"
    )
    write_base(base, template=template)
    rows = [preference(f"{a}+1?", f"{a + 1}", f"{a + 2}", 0.9) for a in range(8)]
    config = RewardConfig(base=str(base), epochs=1, max_length=64, threads=1)
    train_reward(config, Preference.to_table(rows), None, out, seed=0)
    return out


def test_a_model_of_reward_training_scores_as_its_own_loader_does(trained: Path) -> None:
    found = scores(ask(RewardModelConfig(model=str(trained))))
    own = RewardModel.load(trained)
    for case in CASES:
        for r in (case.a, case.b):
            wanted = own.score([(case.prompt.messages, r.text)])[0]
            assert found[r.id] == pytest.approx(wanted, abs=1e-5)
    chat = scores(ask(RewardModelConfig(model=str(trained), template="chat")))
    assert any(abs(chat[unit] - value) > 1e-3 for unit, value in found.items())  # type: ignore[operator]


def test_models_that_are_no_reward_models_are_refused(tmp_path: Path) -> None:
    bare, two, empty = tmp_path / "bare", tmp_path / "two", tmp_path / "empty"
    write_base(bare)
    with pytest.raises(EngineError, match=r"2 outputs"):  # transformers' default for a bare base
        ask(RewardModelConfig(model=str(bare)))
    config = json.loads((bare / "config.json").read_text())
    config["id2label"] = {"0": "LABEL_0"}
    (bare / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=r"not a trained reward model: score.weight is missing"):
        ask(RewardModelConfig(model=str(bare)))
    with pytest.raises(EngineError, match=r"the model has 3 outputs; a reward model has one"):
        ask(RewardModelConfig(model=str(llama(two, labels=3))))
    empty.mkdir()
    with pytest.raises(UserError, match=r"holds no config.json"):
        ask(RewardModelConfig(model=str(empty)))


def test_pickled_weights_and_remote_code_are_never_loaded(tmp_path: Path) -> None:
    pickled, coded = tmp_path / "pickled", tmp_path / "coded"
    llama(pickled)
    model = AutoModelForSequenceClassification.from_pretrained(pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"cannot load the reward model"):
        ask(RewardModelConfig(model=str(pickled)))
    llama(coded)
    mark = coded / "ran"
    (coded / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    config = json.loads((coded / "config.json").read_text())
    config["model_type"] = "own"
    config["auto_map"] = {
        "AutoConfig": "own.Own",
        "AutoModelForSequenceClassification": "own.OwnModel",
    }
    (coded / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=r"cannot load the reward model"):
        ask(RewardModelConfig(model=str(coded)))
    assert not mark.exists()


def test_material_is_the_folder_s_content(tmp_path: Path) -> None:
    one, two = llama(tmp_path / "one"), llama(tmp_path / "two")
    first = material(RewardModelConfig(model=str(one)))
    assert first is not None and first == material(RewardModelConfig(model=str(two)))
    assert first != material(RewardModelConfig(model=str(llama(two, initializer_range=0.1))))
    assert material(RewardServerConfig(base_url="http://h:1", model="m")) is None


def test_no_cases_load_nothing() -> None:
    assert ask(RewardModelConfig(model="/nowhere"), []) == Opinions([], [])


def test_scores_that_are_no_numbers_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reward_model._Model, "score", lambda self, rows: [math.nan] * len(rows))
    found = ask(RewardModelConfig(model=str(llama(tmp_path))), CASES[:1])
    assert [(v.value, v.reason) for v in found.votes] == [(None, "not_finite")] * 3


def test_the_order_of_the_cases_changes_no_score(tmp_path: Path) -> None:
    config = RewardModelConfig(model=str(llama(tmp_path)), batch_tokens=200)
    mixed = random.Random(0).sample(CASES, len(CASES))
    one, two = scores(ask(config)), scores(ask(config, mixed))
    assert two == pytest.approx(one, abs=1e-5)
