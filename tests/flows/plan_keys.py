"""Plans that name all keys there are, and a walk over them by the plan's JSON schema."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.plan import Plan
from tests.flows.plans import POLICY, ROOT, scripted

BUNDLED = ROOT / "data" / "plans" / "demo.toml"
SCHEMA = Plan.model_json_schema()

SAMPLING = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "max_tokens": 64, "stop": ["\n\n"]}
INGEST = {
    "paths": ["prompts.jsonl"],
    "format": "jsonl",
    "columns": {
        **{"prompt": "prompt", "messages": "messages", "reference": "reference", "id": "id"},
        **{"task": "task", "verifier": "verifier", "source": "source", "licence": "licence"},
        **{"constraints": "constraints", "instructions": "instruction_id_list"},
        "arguments": "kwargs",
    },
    "task": "math",
    "verifier": "numeric",
    "source": "tests",
    "licence": "mit",
    "max_chars": 5000,
    "limit": 10,
    "split": "train",
}
TRAIN = {
    **{"base": str(POLICY), "epochs": 1, "batch_size": 2, "learning_rate": 1e-3, "threads": 1},
    **{"max_length": 64, "warmup_share": 0.0, "weight_decay": 0.0, "bf16": False},
}
LLM = {
    **{"engine": "fake", "reference": True, "rubric": True, "dimensions": ["tone"], "think": True},
    **{"logits": False, "samples": 2, "template": "pairwise", "system": "Be strict."},
    "sampling": SAMPLING,
}
WHOLE: dict[str, Any] = {
    "name": "maximal",
    "seed": 1,
    "shard_rows": 10,
    "failure_limit": 0.5,
    "prompts": INGEST,
    "engines": {
        "fake": {
            **{"kind": "scripted", "replies": ["#1"], "fail_share": 0.1, "delay_ms": 1.0},
            **{"concurrency": 4, "ask_log": "asked.txt"},
        },
        "small": {
            **{"kind": "local", "model": "org/name", "revision": "main", "dtype": "float32"},
            **{"device": "cpu", "batch": 4, "max_context": 64, "threads": 1},
            "cache_mib": 16,
        },
        "server": {
            **{"kind": "openai", "base_urls": ["http://127.0.0.1:9/v1"], "model": "m"},
            **{"revision": "r", "endpoint": "completions", "template": "chat.jinja"},
            **{"continue_mode": "vllm", "api_key_env": "KEY", "concurrency": 4, "timeout_s": 1.0},
            **{"retries": 0, "give_up_s": 0.0, "structured": "none", "logprobs": True},
            **{"price_prompt": 1.0, "price_completion": 2.0},
        },
        "card": {
            **{"kind": "vllm", "model": "org/name", "revision": "main", "dtype": "auto"},
            **{"max_model_len": 64, "gpu_memory_utilization": 0.5, "max_num_seqs": 4},
            "tensor_parallel_size": 1,
        },
    },
    "generate": {"engine": "fake", "samples": 4, "system": "Be brief.", "sampling": SAMPLING},
    "verify": {"last_number": True},
    "process": {
        **{"engine": "fake", "method": "monte_carlo", "k": 4, "stop_at": 1, "splitter": "lines"},
        **{"per_prompt": 2, "best_of": 4, "judge_tokens": 64, "sampling": SAMPLING},
        **{"budget_tokens": 10_000, "question_tokens": 1000},
        "filter": {"rollouts": 16, "above": 0.1, "below": 0.9},
    },
    "pairs": {"per_prompt": 2, "best_worst": False, "min_gap": 0.1, "unlabelled": True},
    "judge": {
        "judges": ["verifier", "step_values"],
        "panel": {
            "two": {"kind": "pairwise", **LLM},
            "one": {"kind": "pointwise", **LLM},
            "many": {"kind": "listwise", **LLM},
            "words": {
                **{"kind": "likelihood", "engine": "fake", "measure": "density_ratio"},
                **{"against": "small", "satisfied": ["Thanks."], "dissatisfied": ["No."]},
            },
            "scalar": {
                **{"kind": "reward_model", "model": "org/name", "revision": "main"},
                **{"dtype": "float32", "device": "cpu", "batch_tokens": 64, "max_length": 32},
                "template": "chat",
            },
            "served": {
                **{"kind": "reward_server", "base_url": "http://127.0.0.1:9", "model": "m"},
                **{"endpoint": "score", "api_key_env": "KEY", "concurrency": 2},
                **{"timeout_s": 1.0, "retries": 0},
            },
            "code": {"kind": "code", "measure": "chrf"},
        },
        "probes": {
            "measures": ["accuracy", "self_preference"],
            "limits": {"accuracy": 0.5},
            "self_pairs": [{"judge": "two", "prompt": "p", "own": "a", "other": "b"}],
        },
    },
    "rubrics": {
        **{"methods": ["contrastive", "person"], "engine": "fake", "judge": "fake"},
        **{"scope": "general", "contrast": "lists", "paths": ["rubric.toml"]},
        **{"max_criteria": 4, "max_pairs": 16, "samples": 2, "sampling": SAMPLING},
        **{"weights": "fitted", "similar": 0.8, "held_out": 0.2},
        "embed": {"model": "org/name", "batch": 8, "device": "cpu"},
        "verdicts": {"ask": "words", "batch": 5, "sampling": SAMPLING},
        "scoring": {"gate": 0.5},
        "value": {"min_pairs": 5, "min_prompts": 2, "fdr": 0.1},
    },
    "humans": {
        **{"paths": ["votes.parquet"], "error": 0.1, "purpose": "audit", "propensity": 0.5},
        "without": ["human-1"],
        "aggregate": {"method": "majority", "pool_below": 5, "error": 0.1, "iterations": 9},
    },
    "review": {
        **{"campaign": "c1", "url": "http://127.0.0.1:9", "instruction": "Read both."},
        "question": {
            **{"ratings": "required", "justification": "none", "error_types": ["Wrong"]},
        },
        "show_predictions": True,
    },
    "embed": {"model": "org/name", "batch": 8, "device": "cpu"},
    "calibrate": {
        **{"folds": 3, "min_given": 100, "min_labels": 20, "fit_pairs": 1000},
        **{"shared_responses": False, "ridge": 5.0, "slices": "source"},
    },
    "decide": {
        **{"keep_margin": 0.2, "flip_margin": 0.4, "min_votes": 1, "route": False},
        "costs": {
            **{"wrong_label": 2.0, "softened": 0.1, "dropped": 0.2, "human_label": 0.1},
            **{"human_error": 0.1, "route": False},
        },
    },
    "rounds": {
        **{"count": 2, "folds": 2, "min_pairs": 10, "judge": "two", "neighbours": 4, "most": 50},
        **{"error_below": 0.4, "sure": 0.9, "reward": {**TRAIN, "center": 0.0, "margin": True}},
    },
    "risk": {
        **{"kind": "conditional", "alpha": 0.05, "confidence": 0.8, "slices": True},
        **{"units": "prompts", "label_error": 0.01, "weighted": True},
    },
    "route": {
        **{"answers": 50, "seconds": 20.0, "hourly_rate": 10.0, "error_cost": 2.0},
        **{"human_error": 0.1, "audit": 0.2, "gold": 0.1, "overlap": 2, "overlap_share": 0.1},
        **{"candidates": 3.0, "round": 1, "known": ["known.jsonl"]},
    },
    "emit": {
        **{"name": "maximal", "formats": ["standard"], "validation": 0.2, "test": 0.2},
        **{"min_probability": 0.5, "accepted_only": True, "licence": "mit"},
        "step_views": ["trl"],
    },
    "train": {
        "reward": {**TRAIN, "center": 0.0, "margin": True},
        "steps": {**TRAIN, "target": "label"},
    },
    "evaluate": {
        "prompts": INGEST,
        "generate": {"engine": "fake", "samples": 2, "system": "Be brief.", "sampling": SAMPLING},
        "seeds": 2,
        "step_checker": "word_problems",
        "metrics": {
            **{"n": [1, 2], "step_aggregate": "last", "splitter": "lines", "bootstrap": 10},
            "level": 0.9,
        },
    },
}

MAXIMAL: dict[str, Any] = json.loads(json.dumps(WHOLE))
"""As WHOLE, but no table stands in two places."""

OF_METHODS: dict[str, dict[str, Any]] = {
    "advantage": {"prover": "policy"},
    "omega": {
        "omega": {
            **{"searches": 5, "rollouts": 50, "alpha": 0.4, "beta": 0.8, "length": 200.0},
            "exploration": 0.1,
        }
    },
    "tree": {
        "tree": {"simulations": 8, "width": 3, "depth": 8, "exploration": 0.5, "min_gap": 0.2}
    },
    "changepoint": {
        "changepoint": {
            **{"confidence": 0.8, "min_gain": 0.1, "wave": 2},
            **{"max_rollouts": 32, "answers": False, "fit": False, "pilot": 8},
            "priors": {
                **{"solve_rate": 0.4, "recovery": 0.1, "repeat": 0.4, "chance_repeat": 0.1},
            },
        }
    },
    "ensemble": {"judge": "policy", "ensemble": {"samples": 2, "reverse": False}},
}
"""Keys of [process] that only one method takes, so that no plan can name them all."""


def bundled() -> dict[str, Any]:
    """The bundled plan as a table, with paths that hold wherever it is written."""
    text = BUNDLED.read_text("utf-8").replace('"../', f'"{ROOT}/data/')
    return tomllib.loads(text)


PLANS = {
    "bundled": bundled(),
    "maximal": MAXIMAL,
    "paid": scripted(name="paid", calibrate={}, route={"money": 5.0}),
    **{
        method: scripted(name=method, process={"method": method, **own})
        for method, own in OF_METHODS.items()
    },
}


@dataclass(frozen=True)
class Key:
    """A key of a plan: where it stands, what the JSON schema says of it, what stands beside it."""

    at: tuple[str, ...]
    options: tuple[dict[str, Any], ...]
    required: bool
    siblings: frozenset[str]
    tag: bool
    """It says which of several tables the table is."""

    @property
    def dotted(self) -> str:
        return ".".join(self.at)


def keys(plan: Mapping[str, Any], node: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[Key]:
    """All keys of a plan, by the schema."""
    for option in _options(node, plan):
        if "properties" in option:
            known = frozenset(option["properties"])
            for name, value in plan.items():
                inner = option["properties"][name]
                kinds = tuple(_options(inner, value))
                needed = name in option.get("required", ())
                tag = name == "kind" and "discriminator" in node
                yield Key((*at, name), kinds, needed, known, tag)
                if isinstance(value, dict):
                    yield from keys(value, inner, (*at, name))
        elif "additionalProperties" in option:
            for name, value in plan.items():
                yield from keys(value, option["additionalProperties"], (*at, name))


def _options(node: dict[str, Any], value: Any) -> Iterator[dict[str, Any]]:
    """What a value may be, with references followed and a tagged table told by its tag."""
    if "$ref" in node:
        yield from _options(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], value)
    elif "discriminator" in node:
        yield from _options({"$ref": node["discriminator"]["mapping"][value["kind"]]}, value)
    elif "anyOf" in node:
        for option in node["anyOf"]:
            yield from _options(option, value)
    else:
        yield node


def mutated(plan: dict[str, Any], at: tuple[str, ...], value: Any = None) -> dict[str, Any]:
    """The plan with another value at a key; None takes the key out."""
    made = copy.deepcopy(plan)
    table = made
    for name in at[:-1]:
        table = table[name]
    if value is None:
        del table[at[-1]]
    else:
        table[at[-1]] = value
    return made


SMALL = {**dict.fromkeys(OF_METHODS, "process"), "paid": "route"}
"""Plans of which one table alone is new."""
ALL = {
    name: tuple(key for key in keys(plan, SCHEMA) if key.at[0] == SMALL.get(name, key.at[0]))
    for name, plan in PLANS.items()
}
"""Keys by plan."""
