"""A random tiny Llama with a tokenizer of one token a character, and rows for it."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from schemas.records import Message, Preference, StepExample

TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'user' -%}{{ 'Q: ' + m['content'] + '\\nA: ' }}"
    "{%- elif m['role'] == 'assistant' -%}{{ m['content'] + eos_token }}"
    "{%- else -%}{{ raise_exception('no system turns') }}{%- endif -%}{%- endfor -%}"
)


def write_base(folder: Path, pad: str | None = "<|pad|>", template: str = TEMPLATE) -> Path:
    characters = ["\n", *map(chr, range(32, 127))]
    vocab = {t: i for i, t in enumerate(["<|pad|>", "<|end|>", "<|unk|>", *characters])}
    bpe = Tokenizer(BPE(vocab=vocab, merges=[], unk_token="<|unk|>"))
    bpe.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=pad,
        eos_token="<|end|>",
        unk_token="<|unk|>",
        padding_side="left",
        chat_template=template,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=96,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def answer(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


def preference(
    prompt: str, chosen: str, rejected: str, probability: float = 1.0, margin: float = 0.0
) -> Preference:
    return Preference(
        prompt=ask(prompt),
        chosen=answer(chosen),
        rejected=answer(rejected),
        probability=probability,
        margin=margin,
        votes=(),
        label_source="verifier",
        rule="test",
        pair_id=f"{prompt}|{chosen}|{rejected}",
        prompt_id=prompt,
        chosen_id=chosen,
        rejected_id=rejected,
        model="test",
        source="made <b>`up`</b>",
        licence="Apache-2.0",
    )


def step_example(
    prompt: str,
    completions: tuple[str, ...],
    labels: tuple[int, ...],
    values: tuple[float | None, ...] | None = None,
    sound: tuple[float | None, ...] | None = None,
) -> StepExample:
    return StepExample(
        prompt=ask(prompt),
        completions=completions,
        labels=labels,
        values=values or (None,) * len(labels),
        sound=sound or (None,) * len(labels),
        advantages=(None,) * len(labels),
        n=(8,) * len(labels),
        first_error=None,
        no_error=None,
        resolved=True,
        final_right=None,
        method="test",
        trajectory_id="t",
        response_id="r",
        prompt_id=prompt,
        model="test",
        source="made up",
        licence=None,
    )
