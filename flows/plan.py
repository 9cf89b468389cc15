"""The plan: one TOML file, validated whole before anything runs."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from flows.plan_parts import CalibratePlan as CalibratePlan
from flows.plan_parts import DecidePlan as DecidePlan
from flows.plan_parts import EngineConfig as EngineConfig
from flows.plan_parts import EvaluatePlan as EvaluatePlan
from flows.plan_parts import HumansPlan as HumansPlan
from flows.plan_parts import ReviewPlan as ReviewPlan
from flows.plan_parts import RoundsPlan as RoundsPlan
from flows.plan_parts import RoutePlan as RoutePlan
from flows.plan_parts import RubricsPlan as RubricsPlan
from flows.plan_parts import TrainPlan as TrainPlan
from pipelines.config import Config
from pipelines.consistency.risk import RiskConfig
from pipelines.embedding import EmbedConfig
from pipelines.emit.emit import Config as EmitConfig
from pipelines.engines.local import LocalConfig
from pipelines.engines.openai import OpenAIConfig
from pipelines.engines.scripted import ScriptedConfig
from pipelines.engines.vllm import VLLMConfig
from pipelines.generate import GenerateConfig
from pipelines.ingest import Config as IngestConfig
from pipelines.judge import panel
from pipelines.judge.config import JudgeConfig, PanelJudge
from pipelines.judge.reward_model import RewardModelConfig
from pipelines.pairs import PairsConfig
from pipelines.process.config import ProcessConfig
from pipelines.verify import Config as VerifyConfig
from schemas.errors import PlanError


class Plan(Config):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    """Name of the plan: lower-case letters, digits and hyphens."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness of the run follows from it."""
    shard_rows: Annotated[int, Field(ge=1)] = 1000
    """Prompts a shard; a shard is the unit of work of a Prefect task and of a resume."""
    failure_limit: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest share of a shard's requests that may get no usable answer before the run stops."""
    prompts: IngestConfig
    """Where the prompts come from."""
    engines: Annotated[dict[str, EngineConfig], Field(min_length=1)]
    """Who answers, by name."""
    generate: GenerateConfig
    """Sample responses."""
    verify: VerifyConfig = VerifyConfig()
    """Check final answers and constraints by code."""
    process: ProcessConfig | None = None
    """Label steps by rollouts; none: no step labels."""
    pairs: PairsConfig = PairsConfig()
    """Choose what is compared."""
    judge: JudgeConfig = JudgeConfig()
    """Who votes."""
    rubrics: RubricsPlan | None = None
    """Make rubrics, keep what predicts, and judge by it; none: no rubrics."""
    humans: HumansPlan | None = None
    """What people said; none: nobody was asked."""
    review: ReviewPlan | None = None
    """Take part in a campaign: a run first brings in the votes that are there, and at its end puts its
    queue to people. It never waits for them."""
    embed: EmbedConfig | None = None
    """Model that turns responses into vectors, for neighbours and spread; none: without."""
    calibrate: CalibratePlan | None = None
    """Say of every label how likely it is right; none: the majority decides."""
    decide: DecidePlan = DecidePlan()
    """Turn votes into decisions."""
    rounds: RoundsPlan | None = None
    """Let what is decided train a judge, and decide again; none: decide once."""
    risk: RiskConfig | None = None
    """Bound the error of what is accepted; none: no bound is stated."""
    route: RoutePlan | None = None
    """Make a queue of pairs for people to answer; none: nobody is to be asked."""
    emit: EmitConfig
    """Write the dataset."""
    train: TrainPlan | None = None
    """Train reward models on it; none: stop at the dataset."""
    evaluate: EvaluatePlan | None = None
    """Test them; none: no evaluation."""


def load(path: Path) -> Plan:
    """Read and validate a plan; paths in it are taken from the plan's folder.

    Raises PlanError with one line for the first problem and the count of the others.
    """
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise PlanError(f"{path}: no such plan; the bundled one is data/plans/demo.toml") from None
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}; name a TOML file") from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # also an integer of 5,000 digits
        raise PlanError(f"{path}: not TOML: {error}") from None
    if (large := _large(raw)) is not None:
        raise PlanError(f"{path}: {large}: beyond the 64 bits of TOML's integers")
    try:
        # As JSON, so that types are strict but TOML's arrays are taken for tuples. No key takes a
        # date: as an object, it is refused wherever it stands.
        plan = Plan.model_validate_json(json.dumps(raw, default=lambda d: {"date": str(d)}))
    except ValidationError as error:
        # A misspelt key comes first: it is why the key that is meant is missing.
        problems = sorted(
            error.errors(include_url=False), key=lambda p: p["type"] != "extra_forbidden"
        )
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PlanError(f"{path}: {_words(problems[0])}{more}") from None
    plan = _absolute(plan, path.parent.absolute())
    _cross_check(path, plan)
    return plan


def _large(value: Any, *at: str) -> str | None:
    """Where an integer stands that nothing below could hold."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return next((found for k, v in inner if (found := _large(v, *at, str(k)))), None)
    return _dotted(at) if isinstance(value, int) and not -(2**63) <= value < 2**63 else None


def _dotted(at: Sequence[str]) -> str:
    """A key as TOML writes it."""
    bare = re.compile(r"[A-Za-z0-9_-]+")
    return ".".join(part if bare.fullmatch(part) else json.dumps(part) for part in at)


def _words(problem: Any) -> str:
    """One problem of pydantic's, in a plan writer's words."""
    where, siblings, secret = _locate(problem["loc"])
    kind = problem["type"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(problem["loc"][-1].lower(), siblings, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(siblings)}"
        return f"{where}: unknown key; {hint}"
    if kind == "missing":
        return f"{where}: missing; add it (`prefinery plan schema` explains every key)"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        if kind == "union_tag_invalid":
            return f"{where}.kind: must be one of {problem['ctx']['expected_tags']}"
        union = EngineConfig if where.startswith("engines.") else PanelJudge
        return f"{where}.kind: missing; one of {', '.join(map(repr, _tags(union)))}"
    if kind == "value_error":  # our own words
        return f"{where}: {problem['ctx']['error']}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if secret:
        return f"{where}: {message}"
    found = json.dumps(problem["input"], default=str)
    return f"{where}: {message}, not {found if len(found) < 80 else found[:77] + '...'}"


def _locate(loc: tuple[int | str, ...]) -> tuple[str, list[str], bool]:
    """A problem's place as a dotted key, the keys that are known there, and whether it is secret."""
    kind: Any = Plan
    shown: list[str] = []
    siblings: list[str] = []
    secret = False
    for part in loc:
        model = _model(kind, part)
        if model is not None:
            siblings = list(model.model_fields)
            secret = secret or bool(model.model_config.get("hide_input_in_errors"))
            info = model.model_fields.get(str(part))
            kind = info.annotation if info else None
            shown.append(str(part))
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
            shown.append(str(part))
        elif (tagged := _tagged(kind, part)) is not None:
            kind = tagged  # the tag of a union: no key of the plan's
        else:
            shown.append(str(part))
    return _dotted(shown) or "the plan", siblings, secret


def _model(kind: Any, part: int | str) -> type[BaseModel] | None:
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option if _tagged(kind, part) is None else None
    return None


def _tagged(kind: Any, part: int | str) -> Any:
    """The member of a union told apart by `kind` whose tag this is."""
    options = [o for o in _options(kind) if isinstance(o, type) and issubclass(o, BaseModel)]
    if len(options) < 2:
        return None
    for option in options:
        if part in get_args(option.model_fields["kind"].annotation):
            return option
    return None


def _tags(union: Any) -> list[str]:
    """The tags that tell a union's members apart."""
    return sorted(get_args(o.model_fields["kind"].annotation)[0] for o in _options(union))


def _options(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return get_args(kind)
    return (kind,)


def _absolute(plan: Plan, base: Path) -> Plan:
    """Paths made absolute; a model that is no folder there stays a Hub name."""

    def files(config: IngestConfig) -> IngestConfig:
        return config.model_copy(update={"paths": tuple(str(base / p) for p in config.paths)})

    def folder(name: str) -> str:
        try:
            path = base / Path(name).expanduser()
            local = path.exists() or name.startswith((".", "/", "~"))
            return str(path.resolve()) if local else name
        except (OSError, RuntimeError, ValueError) as error:
            raise PlanError(f"model folder {name[:80]!r}: {error}") from None

    engines: dict[str, Any] = {}
    for name, engine in plan.engines.items():
        update: dict[str, Any] = {}
        if isinstance(engine, LocalConfig | VLLMConfig):
            update["model"] = folder(engine.model)
        if isinstance(engine, OpenAIConfig) and engine.template is not None:
            update["template"] = str(base / engine.template)
        if isinstance(engine, ScriptedConfig) and engine.ask_log is not None:
            update["ask_log"] = str(base / engine.ask_log)
        engines[name] = engine.model_copy(update=update)
    update = {"prompts": files(plan.prompts), "engines": engines}
    judges = {
        name: judge.model_copy(update={"model": folder(judge.model)})
        if isinstance(judge, RewardModelConfig)
        else judge
        for name, judge in plan.judge.panel.items()
    }
    update["judge"] = plan.judge.model_copy(update={"panel": judges})
    if (rubrics := plan.rubrics) is not None:
        named: dict[str, Any] = {"paths": tuple(str(base / p) for p in rubrics.paths)}
        if rubrics.embed is not None:
            model = folder(rubrics.embed.model)
            named["embed"] = rubrics.embed.model_copy(update={"model": model})
        update["rubrics"] = rubrics.model_copy(update=named)
    if plan.embed is not None:
        model = folder(plan.embed.model)
        update["embed"] = plan.embed.model_copy(update={"model": model})
    if plan.humans is not None:
        paths = tuple(str(base / p) for p in plan.humans.paths)
        update["humans"] = plan.humans.model_copy(update={"paths": paths})
    if plan.route is not None:
        known = tuple(str(base / p) for p in plan.route.known)
        update["route"] = plan.route.model_copy(update={"known": known})
    if plan.rounds is not None:
        reward = plan.rounds.reward.model_copy(update={"base": folder(plan.rounds.reward.base)})
        update["rounds"] = plan.rounds.model_copy(update={"reward": reward})
    if plan.train is not None:
        trained = {
            name: config.model_copy(update={"base": folder(config.base)})
            for name in ("reward", "steps")
            if (config := getattr(plan.train, name)) is not None
        }
        update["train"] = plan.train.model_copy(update=trained)
    if plan.evaluate is not None:
        update["evaluate"] = plan.evaluate.model_copy(
            update={"prompts": files(plan.evaluate.prompts)}
        )
    return plan.model_copy(update=update)


def _cross_check(path: Path, plan: Plan) -> None:
    """What no single key can say."""
    askers = {"generate.engine": plan.generate.engine}
    if plan.process is not None:
        askers["process.engine"] = plan.process.engine
        for role in ("prover", "judge"):
            if (name := getattr(plan.process, role)) is not None:
                askers[f"process.{role}"] = name
    for name, judge in plan.judge.panel.items():
        for role, engine in panel.roles(judge):
            askers[f"judge.panel.{name}.{role}"] = engine
    if plan.rubrics is not None:
        for role in ("engine", "judge"):
            if (name := getattr(plan.rubrics, role)) is not None:
                askers[f"rubrics.{role}"] = name
    if plan.evaluate is not None:
        askers["evaluate.generate.engine"] = plan.evaluate.generate.engine
    for where, engine in askers.items():
        if engine not in plan.engines:
            known = ", ".join(sorted(plan.engines))
            raise PlanError(f"{path}: {where}: no engine {engine!r}; there are: {known}")
    if (rounds := plan.rounds) is not None and rounds.judge is not None:
        if rounds.judge not in plan.judge.panel:
            raise PlanError(f"{path}: rounds.judge: no judge {rounds.judge!r} in [judge.panel]")
        if plan.embed is None:
            raise PlanError(f"{path}: rounds.judge: needs [embed] to find what is near an error")
    if plan.review is not None and plan.route is None:
        raise PlanError(f"{path}: review: there is no queue to put to people; add [route]")
    for name in ("risk", "route", "rounds"):
        if getattr(plan, name) is not None and plan.calibrate is None:
            raise PlanError(f"{path}: {name}: needs probabilities; add [calibrate]")
    by_remarks = plan.rubrics is not None and "feedback" in plan.rubrics.methods
    if by_remarks and plan.humans is None and plan.review is None:
        raise PlanError(
            f"{path}: rubrics.methods: 'feedback' needs what people wrote on responses; add [humans]"
        )
    if plan.humans is not None and not (plan.calibrate or plan.process or by_remarks):
        raise PlanError(
            f"{path}: humans: nothing to use votes for; add [calibrate] for those on pairs, or "
            "[process] for those on steps"
        )
    if plan.evaluate is not None and plan.train is None:
        raise PlanError(f"{path}: evaluate: nothing is trained; add [train.reward] or drop it")
    for kind in ("reward", "steps"):
        config = getattr(plan.train, kind, None)
        if config is not None and not (Path(config.base) / "config.json").is_file():
            raise PlanError(
                f"{path}: train.{kind}.base: {config.base} holds no config.json; name the folder "
                "of a model"
            )
    if plan.train is not None and plan.train.steps is not None and plan.process is None:
        raise PlanError(f"{path}: train.steps: needs step labels; add [process]")
    if plan.emit.step_views and plan.process is None:
        raise PlanError(f"{path}: emit.step_views: needs step labels; add [process]")
    if (
        "step_values" in plan.judge.judges
        and plan.process is None
        and "judges" in (plan.judge.model_fields_set)
    ):
        raise PlanError(f"{path}: judge.judges: 'step_values' needs [process]")
