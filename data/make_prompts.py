"""Writes the sample prompts, byte for byte the same each time: python -m data.make_prompts

prompts.jsonl holds 400 prompts for demonstrations, eval_prompts.jsonl 150 for evaluation. The seeds
differ, and each set leaves out the texts of those made before it. No problem that the policy was
trained on is among them: training leaves out `held_out` (data/train_policy.py), and the seed of
the rest is one whose problems training does not have (a test looks).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from data.word_problems import Problem, generate

HERE = Path(__file__).parent
MORE_SEED = 1003
HARDER = ("compare", "prices", "compare", "prices", "groups", "chain", "share", "scale")


def demo_problems() -> list[Problem]:
    """The 400 problems of prompts.jsonl: 200 of all families, 200 mostly of the harder ones."""
    shown = [p.text for p in held_out()]
    return _first() + generate(200, seed=MORE_SEED, families=HARDER, exclude=shown)


def eval_problems() -> list[Problem]:
    """The 150 problems of eval_prompts.jsonl, none of them among the others."""
    return generate(150, seed=1002, exclude=[p.text for p in _first()])


def held_out() -> list[Problem]:
    """What training leaves out by name."""
    return _first() + eval_problems()


def _first() -> list[Problem]:
    return generate(200, seed=1001)


def to_jsonl(problems: Sequence[Problem], prefix: str) -> str:
    """One JSON object a line: id, prompt, reference answer and what the stages must know of it."""
    rows = (
        {
            "id": f"{prefix}-{i:06d}",
            "prompt": p.text,
            "reference": str(p.answer),
            "task": "math",
            "verifier": "numeric",
            "source": "prefinery/word_problems",
            "licence": "Apache-2.0",
        }
        for i, p in enumerate(problems, start=1)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def files() -> dict[Path, str]:
    """The path and the whole text of each file."""
    return {
        HERE / "prompts.jsonl": to_jsonl(demo_problems(), "wp"),
        HERE / "eval_prompts.jsonl": to_jsonl(eval_problems(), "we"),
    }


def main() -> None:
    """Writes both files."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
