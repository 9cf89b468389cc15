"""The shipped policy: its files, its chat template, and that it is good but not perfect."""

import json
from pathlib import Path
from typing import Any

import pytest

POLICY = Path(__file__).parents[2] / "data" / "policy"

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(POLICY)


def test_files_are_small_and_plain() -> None:
    assert (POLICY / "model.safetensors").stat().st_size < 10_000_000
    config = json.loads((POLICY / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["dtype"], config["max_position_embeddings"]) == ("float32", 512)
    assert not list(POLICY.glob("*.bin")) + list(POLICY.glob("*.py"))


def test_tokenizer_is_a_character_a_token(tokenizer: Any) -> None:
    text = "Q: Ana has 3 pens.\nA: 3+4=7\n#7 ~{}|"
    ids = tokenizer.encode(text, add_special_tokens=True)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("é\t漢") == [tokenizer.unk_token_id] * 3  # unknown, never an error
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3


@pytest.mark.parametrize("prefix", ["3+4=7\n", "3+4=7\n7-", "3+4=7", ""])
def test_chat_template_continues_a_message_as_it_is(tokenizer: Any, prefix: str) -> None:
    user = {"role": "user", "content": "How many?"}
    opened = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert opened == "Q: How many?\nA: "
    chat = [user, {"role": "assistant", "content": prefix}]
    continued = tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
    assert continued == opened + prefix
    closed = tokenizer.apply_chat_template(chat, tokenize=False)
    assert closed == opened + prefix + tokenizer.eos_token


def test_training_saw_no_shown_problem() -> None:
    from data.make_prompts import demo_problems, eval_problems
    from data.train_policy import training_problems

    shown = {p.text for p in (*demo_problems(), *eval_problems())}
    assert not shown & {p.text for p in training_problems(60_000)}


def test_labels_cover_the_solution_and_its_end(tokenizer: Any) -> None:
    from data.train_policy import batches
    from data.word_problems import generate

    ids, labels = next(batches(tokenizer, generate(64, seed=3), size=4, seed=0))
    for row, wanted in zip(ids, labels, strict=True):
        kept = wanted != -100
        assert (row[kept] == wanted[kept]).all()
        prompt, answer = tokenizer.decode(row[~kept]), tokenizer.decode(wanted[kept])
        assert prompt.startswith("Q: ")
        assert "\nA: " in prompt
        assert answer.count("=") + 2 == len(answer.splitlines()) + 1
        assert answer.endswith(tokenizer.eos_token)


def test_policy_is_good_but_not_perfect(tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from data.make_prompts import eval_problems
    from data.train_policy import sample
    from data.word_problems import check

    model = AutoModelForCausalLM.from_pretrained(POLICY)
    assert sum(p.numel() for p in model.parameters()) == 1_642_752
    texts = [p.text for p in eval_problems()[:40]]
    torch.manual_seed(0)
    solve_rate = {}
    for temperature in (0.0, 1.0):
        replies = sample(model, tokenizer, texts, temperature)
        right = [check(t, r).right for t, r in zip(texts, replies, strict=True)]
        solve_rate[temperature] = sum(right) / len(right)
    assert 0.40 <= solve_rate[1.0] <= 0.95
    assert solve_rate[0.0] >= solve_rate[1.0] - 0.1
