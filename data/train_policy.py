"""Trains the bundled policy: a character-level Llama that solves word problems well, not perfectly.

    python -m data.train_policy [--steps N] [--out data/policy]
    python -m data.train_policy --measure data/policy

It writes weights, configuration and tokenizer that transformers and vLLM load as they are, and
prints JSON: progress on stderr, the measured solve rate on stdout. Everything is seeded; CUDA is
used where there is one.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from data.make_prompts import eval_problems, held_out
from data.word_problems import FAMILIES, Problem, check, generate

PAD, EOS, UNK = "<|pad|>", "<|end|>", "<|unk|>"
CONTEXT = 512
# The two families that are hardest to learn come three times as often in training.
TRAINING_FAMILIES = (*FAMILIES, "compare", "compare", "prices", "prices")
# A chat of one user message renders as "Q: TEXT\nA: "; what the assistant says follows as it is,
# and ends with EOS. A system message goes before, on lines of its own.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ 'Q: ' + message['content'] + '\\nA: ' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ message['content'] + eos_token }}"
    "{%- else -%}{{ message['content'] + '\\n' }}"
    "{%- endif -%}{%- endfor -%}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character or newline (a BPE without merges); others are UNK."""
    characters = ["\n", *map(chr, range(32, 127))]
    vocab = {token: i for i, token in enumerate([PAD, EOS, UNK, *characters])}
    bpe = Tokenizer(BPE(vocab=vocab, merges=[], unk_token=UNK))
    bpe.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh model of 1.64M parameters; the input and output embeddings are one matrix."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=512,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def training_problems(n: int) -> list[Problem]:
    """n problems of a seed of their own, without any text that is held out."""
    shown = [p.text for p in held_out()]
    return generate(n, seed=2001, families=TRAINING_FAMILIES, exclude=shown)


def render(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """The prompt of a problem, as the chat template writes it."""
    chat = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def batches(
    tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], size: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, labels) of shape (size, longest), each of problems of about the same length.

    Padded on the right; labels are -100 but for the solution and its EOS.
    """
    rng = random.Random(seed)
    rows = []
    for p in problems:
        prompt = tokenizer.encode(render(tokenizer, p.text), add_special_tokens=False)
        answer = tokenizer.encode("\n".join(p.solution) + EOS, add_special_tokens=False)
        rows.append((prompt + answer, [-100] * len(prompt) + answer))
    while True:
        rng.shuffle(rows)
        order = sorted(range(len(rows)), key=lambda i: (i // (size * 50), len(rows[i][0])))
        groups = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(rows[i][0]) for i in group)
            ids = torch.full((size, longest), tokenizer.pad_token_id)
            labels = torch.full((size, longest), -100)
            for k, i in enumerate(group):
                ids[k, : len(rows[i][0])] = torch.tensor(rows[i][0])
                labels[k, : len(rows[i][1])] = torch.tensor(rows[i][1])
            yield ids, labels


def train(
    model: LlamaForCausalLM,
    data: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    rate: float,
) -> None:
    """Muon for the matrices, AdamW for embeddings and norms; warm-up, then linear decay to zero."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    model.train()
    started = time.monotonic()
    for step in range(steps):
        scale = min(1.0, (step + 1) / 50, (steps - step) / (0.7 * steps))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
        ids, labels = (t.to(model.device) for t in next(data))
        wanted = labels[:, 1:]
        kept = wanted != -100
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden[kept])
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted[kept])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 0 or step == steps - 1:
            seconds = round(time.monotonic() - started, 1)
            line = {"step": step, "loss": round(loss.item(), 4), "seconds": seconds}
            print(json.dumps(line), file=sys.stderr, flush=True)


@torch.no_grad()
def sample(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    temperature: float = 1.0,
    batch: int = 128,
) -> list[str]:
    """One sampled solution (greedy at temperature 0) a problem text, decoded without EOS."""
    model.eval()
    out = [""] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        prompts = [render(tokenizer, texts[i]) for i in chosen]
        encoded = tokenizer(
            prompts,
            padding=True,
            return_tensors="pt",
            add_special_tokens=False,
            return_token_type_ids=False,
        ).to(model.device)
        ids = model.generate(**encoded, max_new_tokens=72, **sampling)
        new = ids[:, encoded["input_ids"].shape[1] :]
        for i, text in zip(
            chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
        ):
            out[i] = text
    return out


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], k: int
) -> dict[str, Any]:
    """Solve rate, oracle@k, share of steps that are locally valid, and shares of error kinds."""
    texts = [p.text for p in problems for _ in range(k)]
    replies = sample(model, tokenizer, texts)
    checks = [check(text, reply) for text, reply in zip(texts, replies, strict=True)]
    steps = [s for c in checks for s in c.steps]
    kinds = Counter(s.kind for s in steps if s.kind is not None)
    families = Counter(p.family for p in problems)
    return {
        "problems": len(problems),
        "samples": k,
        "solve_rate": round(sum(c.right for c in checks) / len(checks), 4),
        f"oracle_at_{k}": round(
            sum(any(c.right for c in checks[i : i + k]) for i in range(0, len(checks), k))
            / len(problems),
            4,
        ),
        "step_accuracy": round(sum(s.valid for s in steps) / len(steps), 4),
        "complete": round(sum(c.complete for c in checks) / len(checks), 4),
        "right_with_bad_step": round(
            sum(c.right and c.first_error is not None for c in checks) / len(checks), 4
        ),
        "error_kinds": {
            kind: round(count / sum(kinds.values()), 4) for kind, count in kinds.most_common()
        },
        "solve_rate_by_family": {
            f: round(
                sum(c.right for i, c in enumerate(checks) if problems[i // k].family == f)
                / (families[f] * k),
                4,
            )
            for f in sorted(families)
        },
    }


def main() -> None:
    """Trains and saves, or only measures; prints the figures."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--problems", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=here / "policy")
    parser.add_argument("--measure", type=Path, metavar="DIR", help="measure a policy, train none")
    parser.add_argument("--samples", type=int, default=8, help="a problem, to measure")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fresh = eval_problems()
    if args.measure is not None:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.measure)
        model = LlamaForCausalLM.from_pretrained(args.measure).to(device)
    else:
        tokenizer = make_tokenizer()
        model = make_model(tokenizer).to(device)
        problems = training_problems(args.problems)
        train(model, batches(tokenizer, problems, args.batch, args.seed), args.steps, args.rate)
        model.generation_config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=96,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model.save_pretrained(args.out)
        (args.out / "model.safetensors").chmod(0o644)  # it is written for the owner alone
        tokenizer.save_pretrained(args.out)
    torch.manual_seed(args.seed)
    print(json.dumps(measure(model, tokenizer, fresh, args.samples), indent=2))


if __name__ == "__main__":
    main()
