"""Process labels, `--part chain|bundled|utilisation|crash|real|prm`: step labels against the truth.

`chain` (the default) is the grid of a scripted policy: grid.py. Each part's module says what its
figures are.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from benchmarks.harness import Result, options, report
from schemas.errors import UserError

FIRST_SEED = 17
PARTS = {
    "chain": "grid",
    "bundled": "bundled",
    "utilisation": "utilisation",
    "crash": "crash",
    "real": "real",
    "prm": "prm",
}
"""The module of each part; its `measure(chosen, seeds)` gives figures, intervals and tables."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--part", choices=list(PARTS), default="chain")
    known, rest = parser.parse_known_args(argv)
    chosen = options(__doc__ or "", seeds=5, argv=rest)
    part = importlib.import_module(f"benchmarks.process_labels.{PARTS[known.part]}")
    result = Result(
        f"process_labels {known.part}", list(range(FIRST_SEED, FIRST_SEED + chosen.seeds))
    )
    result.figures, result.intervals, result.tables = part.measure(chosen, result.seeds)
    return report(result, chosen)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
