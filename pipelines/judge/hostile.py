"""Responses that say nothing, and that judges are known to prefer all the same."""

from __future__ import annotations

import pyarrow as pa

from pipelines.judge.probe_set import MASTER_KEYS

_KEYS = frozenset(key.strip().casefold() for key in MASTER_KEYS)


def master_keys(responses: pa.Table) -> frozenset[str]:
    """Ids of `Response` rows whose whole text is a master key, or has no letter and no digit.

    Such texts ("Thought process:", ":", nothing at all) are taken for right answers by judges, in 60 to
    90% of cases by some (Zhao et al. 2025, One Token to Fool LLM-as-a-Judge).
    """
    found = []
    for id, text in zip(responses["id"].to_pylist(), responses["text"].to_pylist(), strict=True):
        bare = text.strip().casefold()
        if bare in _KEYS or not any(c.isalnum() for c in bare):
            found.append(id)
    return frozenset(found)
