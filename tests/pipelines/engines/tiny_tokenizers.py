"""Tokenizers of the two usual kinds, trained on a few sentences."""

from __future__ import annotations

from typing import Any

CORPUS = [
    "First step. Second step one.\n\nStep 2: the eggs 🙂 12.5 apples\n",
    "Janet sells 9 eggs. She makes $18.\n",
] * 50
END = "<|end|>"


def byte_level() -> Any:
    """As GPT-2 has it: every byte is a token, words begin with their space, offsets are trimmed."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def metaspace() -> Any:
    """As Llama 2 has it: a space before every text, what is unknown as bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", END, *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    return made
