from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import session
from flows.plan import Plan, load
from pipelines.engines.local import LocalConfig
from pipelines.engines.openai import OpenAIConfig
from pipelines.engines.scripted import ScriptedConfig
from pipelines.engines.vllm import VLLMConfig
from schemas.errors import PlanError
from tests.flows.plan_keys import ALL, BUNDLED, MAXIMAL, OF_METHODS, PLANS, SCHEMA, mutated
from tests.flows.plans import POLICY, ROOT, call, merged, prefinery, scripted, toml, write_plan

EACH = pytest.mark.parametrize("name", PLANS)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "plan.toml"


def refusal(place: Path, plan: Mapping[str, Any] | str | bytes) -> str:
    """What is said of a plan that must not load, without the file's name: always one line."""
    content = plan if isinstance(plan, str | bytes) else toml(plan)
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PlanError) as caught:
        load(place)
    message = str(caught.value)
    assert message.startswith(f"{place}: ") and "\n" not in message
    return message.removeprefix(f"{place}: ")


# --- what the tests walk ---------------------------------------------------------------------------


@EACH
def test_the_plans_load_as_they_are(name: str, place: Path) -> None:
    place.write_text(toml(PLANS[name]))
    assert load(place).name == {"bundled": "word-problems"}.get(name, name)


def test_the_maximal_plan_and_those_of_the_methods_name_every_key_there_is() -> None:
    every = [key for name in PLANS if name != "bundled" for key in ALL[name]]
    tables: dict[str, set[str]] = {}
    for key in every:
        tables.setdefault(".".join(key.at[:-1]), set()).add(key.at[-1])
    for key in every:
        assert tables[".".join(key.at[:-1])] == key.siblings
    assert len({key.dotted for key in every}) > 200


def test_the_bundled_plan_needs_what_stands_beside_it() -> None:
    plan = load(BUNDLED)
    assert plan.prompts.paths == (str(BUNDLED.parent / ".." / "prompts.jsonl"),)
    assert isinstance(plan.engines["policy"], LocalConfig)
    assert plan.engines["policy"].model == str(POLICY)
    assert plan.train is not None and plan.train.reward is not None and plan.train.steps is not None
    assert plan.train.reward.base == plan.train.steps.base == str(POLICY)
    assert plan.evaluate is not None
    assert Path(plan.evaluate.prompts.paths[0]).resolve() == ROOT / "data" / "eval_prompts.jsonl"


# --- one mistake at a time --------------------------------------------------------------------------


@EACH
def test_a_misspelt_key_is_refused_with_the_nearest_one(name: str, place: Path) -> None:
    for key in ALL[name]:
        right = key.at[-1]
        swapped = right[:1] + right[2:3] + right[1:2] + right[3:]
        for wrong in (right + "x", right[:-1], swapped, right.upper()):
            if not wrong or wrong in key.siblings:
                continue
            plan = mutated(PLANS[name], key.at)
            table = plan
            for part in key.at[:-1]:
                table = table[part]
            value = PLANS[name]
            for part in key.at:
                value = value[part]
            table[wrong] = value
            said = refusal(place, plan)
            if key.tag:  # without its tag nobody knows which table it is
                kinds = "'local', 'openai'" if key.at[0] == "engines" else "'code', 'likelihood'"
                assert said.startswith(f"{'.'.join(key.at)}: missing; one of {kinds}")
            elif len(right) < 4:
                assert said.startswith(f"{'.'.join((*key.at[:-1], wrong))}: unknown key; ")
                assert repr(right) in said or right in said.partition("known here: ")[2]
            else:
                where = ".".join((*key.at[:-1], wrong))
                near = {right, *(other for other in key.siblings if other.startswith(wrong))}
                hints = [f"{where}: unknown key; did you mean {other!r}?" for other in near]
                assert said.startswith(tuple(hints))


@EACH
def test_a_required_key_that_is_missing_is_named(name: str, place: Path) -> None:
    needed = [key for key in ALL[name] if key.required and not key.tag]
    of_all = {"name", "prompts", "engines", "generate", "emit"}
    if name in OF_METHODS:
        of_all = {"process.engine"}
    assert {key.dotted for key in needed} >= (set() if name == "paid" else of_all)
    for key in needed:
        said = refusal(place, mutated(PLANS[name], key.at))
        assert said == f"{key.dotted}: missing; add it (`prefinery plan schema` explains every key)"


@EACH
def test_a_value_of_another_type_is_refused(name: str, place: Path) -> None:
    samples = {
        "boolean": True,
        "integer": 3,
        "number": 2.5,
        "string": "x",
        "array": [[]],
        "object": {"x": 1},
        "date": date(1979, 5, 27),
    }
    for key in ALL[name]:
        kinds = {option.get("type", "string") for option in key.options}
        fine = kinds | ({"integer"} if "number" in kinds else set())
        for kind, value in samples.items():
            if kind in fine and kind not in ("array", "object"):
                continue
            said = refusal(place, mutated(PLANS[name], key.at, value))
            assert said.startswith(key.dotted), (key.dotted, kind, said)


@EACH
def test_a_value_out_of_range_is_refused(name: str, place: Path) -> None:
    tried = 0
    for key in ALL[name]:
        for option in key.options:
            for value in _outside(option):
                tried += 1
                said = refusal(place, mutated(PLANS[name], key.at, value))
                assert said.startswith(f"{key.dotted}: "), said
                assert not said.startswith(f"{key.dotted}: unknown"), said
    assert tried > {"bundled": 20, "maximal": 60}.get(name, 1)


def _outside(option: Mapping[str, Any]) -> Iterator[Any]:
    """Values that a schema's bounds rule out."""
    if "minimum" in option:
        yield option["minimum"] - 1
    if "exclusiveMinimum" in option:
        yield option["exclusiveMinimum"]
    if "maximum" in option:
        yield option["maximum"] + 1
    if "exclusiveMaximum" in option:
        yield option["exclusiveMaximum"]
    if option.get("type") == "number":
        yield from (float("nan"), float("inf"), float("-inf"))
    if option.get("type") == "integer":
        yield 10**30
    if option.get("minItems"):
        yield []
    if option.get("minLength"):
        yield ""
    if option.get("minProperties"):
        yield {}
    if "enum" in option or "const" in option:
        yield "something else"
    if "pattern" in option:
        yield from ("", "Upper", "-x", "a b", "a" * 64, "a\n", "../x", "é")


def test_bounds_are_told_with_the_value(place: Path) -> None:
    def change(**changes: Any) -> str:
        return refusal(place, scripted(**changes))

    assert change(generate={"samples": 0}) == (
        "generate.samples: input should be greater than or equal to 1, not 0"
    )
    assert change(engines={"policy": {"kind": "locl"}}) == (
        "engines.policy.kind: must be one of 'local', 'openai', 'scripted', 'vllm'"
    )
    assert change(judge={"judges": ["verifier", "vibes"]}).startswith(
        "judge.judges.1: input should be 'verifier', 'step_values', 'agreement' or 'likelihood', "
        'not "vibes"'
    )
    assert change(failure_limit=float("nan")).startswith("failure_limit: input should be a finite")
    assert change(name=date(1979, 5, 27)).startswith("name: input should be a valid string")
    assert change(emit={"validation": 0.5, "test": 0.5}).startswith(
        "emit: validation + test must be below 1: nothing is left to train on"
    )


def test_a_key_that_needs_quotes_is_told_in_one_line(place: Path) -> None:
    engines = {"a\nb": {"kind": "scripted", "replies": ["x"], "delay": 1}, "policy": None}
    said = refusal(place, scripted(engines=engines))
    assert said == r'engines."a\nb".delay: unknown key; did you mean ' + "'delay_ms'?"


def test_a_password_in_a_url_is_not_repeated(place: Path) -> None:
    server: dict[str, Any] = {"kind": "openai", "base_urls": ["http://me:hunter2@127.0.0.1:9/v1"]}
    said = refusal(place, scripted(engines={"policy": None, "server": server}))
    assert said.startswith("engines.server.base_urls: ") and "hunter2" not in said
    server["base_urls"] = "http://me:hunter2@127.0.0.1:9/v1"
    said = refusal(place, scripted(engines={"policy": None, "server": server}))
    assert said == "engines.server.base_urls: input should be a valid array"


SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=8), st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_other_value_is_a_plan_or_one_line(data: st.DataObject, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(PLANS)))
    key = data.draw(st.sampled_from(ALL[name]))
    plan = mutated(PLANS[name], key.at, data.draw(VALUES))
    text = toml(plan).replace("\x7f", "")
    path = tmp_path / "plan.toml"
    path.write_bytes(text.encode("utf-8", "replace"))
    try:
        assert isinstance(load(path), Plan)
    except PlanError as error:
        assert "\n" not in str(error)
        with pytest.raises(PlanError):
            session.start(path, tmp_path / "store")
        assert not (tmp_path / "store").exists()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(noise=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_noise_is_no_plan(noise: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(noise)
    with pytest.raises(PlanError) as caught:
        load(path)
    assert "\n" not in str(caught.value)


# --- files that are no plans ------------------------------------------------------------------------


def test_files_that_are_no_plans(place: Path) -> None:
    assert refusal(place, "name = ").startswith("not TOML: Invalid value")
    assert refusal(place, b"name = '\xff'") == "not UTF-8 (byte 8); save it as UTF-8"
    assert refusal(place, "") == (
        "name: missing; add it (`prefinery plan schema` explains every key) (and 4 more)"
    )
    assert refusal(place, f"seed = {'9' * 5000}").startswith("not TOML: Exceeds the limit")
    assert refusal(place, f"seed = {'[' * 3000}").startswith("not TOML: maximum recursion depth")
    nested = f"{'[' * 250}{']' * 250}"
    assert "recursion limit" in refusal(place, f"seed = {nested}")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    def say(path: Path) -> str:
        with pytest.raises(PlanError) as caught:
            load(path)
        return str(caught.value)

    gone = tmp_path / "gone.toml"
    assert say(gone) == f"{gone}: no such plan; the bundled one is data/plans/demo.toml"
    assert say(tmp_path) == f"{tmp_path}: Is a directory; name a TOML file"
    plan = write_plan(tmp_path)
    assert say(plan / "x") == f"{plan / 'x'}: Not a directory; name a TOML file"
    assert say(tmp_path / ("a" * 300)).endswith(": File name too long; name a TOML file")


# --- what no single key can say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate": {"engine": "x"}}, "generate.engine: no engine 'x'; there are: policy"),
        ({"process": {"engine": "x"}}, "process.engine: no engine 'x'; there are: policy"),
        (
            {
                "evaluate": {"prompts": {"paths": ["e"]}, "generate": {"engine": "y"}},
                "train": {"reward": {"base": str(POLICY)}},
            },
            "evaluate.generate.engine: no engine 'y'; there are: policy",
        ),
        (
            {"evaluate": {"prompts": {"paths": ["e"]}, "generate": {"engine": "policy"}}},
            "evaluate: nothing is trained; add [train.reward] or drop it",
        ),
        (
            {"process": None, "train": {"steps": {"base": str(POLICY)}}},
            "train.steps: needs step labels; add [process]",
        ),
        (
            {"process": None, "judge": {"judges": ["step_values"]}},
            "judge.judges: 'step_values' needs [process]",
        ),
    ],
)
def test_cross_checks(changes: dict[str, Any], message: str, place: Path) -> None:
    assert refusal(place, scripted(**changes)) == message


def test_a_model_to_train_from_is_looked_for_before_anything_runs(place: Path) -> None:
    said = refusal(place, scripted(train={"steps": {"base": "./models/none"}}))
    folder = place.parent / "models" / "none"
    assert said == f"train.steps.base: {folder} holds no config.json; name the folder of a model"


def test_paths_are_taken_from_the_plans_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "plans"
    for model in ("policy", "org/local"):
        (home / model).mkdir(parents=True)
        (home / model / "config.json").write_text("{}")
    plan = merged(
        MAXIMAL,
        {
            "engines": {
                "small": {"model": "policy"},
                "other": {"kind": "local", "model": "org/local"},
                "up": {"kind": "local", "model": "../elsewhere"},
            },
            "train": {"reward": {"base": "./policy"}},
        },
    )
    write_plan(home, plan)
    monkeypatch.chdir(tmp_path)
    loaded = load(Path("plans/plan.toml"))
    assert loaded.prompts.paths == (str(home / "prompts.jsonl"),)
    engines = loaded.engines
    assert {
        name: engine.model
        for name, engine in engines.items()
        if isinstance(engine, LocalConfig | VLLMConfig)
    } == {
        "small": str(home / "policy"),
        "other": str(home / "org" / "local"),
        "up": str(tmp_path / "elsewhere"),
        "card": "org/name",  # no such folder here: a name on the Hub
    }
    assert isinstance(engines["server"], OpenAIConfig)
    assert engines["server"].template == str(home / "chat.jinja")
    assert isinstance(engines["fake"], ScriptedConfig)
    assert engines["fake"].ask_log == str(home / "asked.txt")
    assert loaded.train is not None and loaded.train.reward is not None
    assert loaded.train.reward.base == str(home / "policy")


@pytest.mark.parametrize("name", ["~nosuchuser/model", "./" + "a" * 300])
def test_a_model_folder_that_can_be_no_path(name: str, place: Path) -> None:
    small = {"kind": "local", "model": name, "replies": None}
    place.write_text(toml(scripted(engines={"policy": small})))
    said = call("run", place, "--root", place.parent / "store").refused()
    assert said.startswith(f"model folder {name[:80]!r}: ")
    assert not (place.parent / "store").exists()


# --- the commands -----------------------------------------------------------------------------------


def test_plan_check(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    done = prefinery("plan", "check", plan)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{plan}: fine (scripted: engines policy)\n"
    plan.write_text(toml(scripted(generate={"sampels": 3})))
    assert call("plan", "check", plan).refused() == (
        f"{plan}: generate.sampels: unknown key; did you mean 'samples'?"
    )
    write_plan(tmp_path, scripted(prompts={"paths": ["promts.jsonl"]}))
    missing = tmp_path / "promts.jsonl"
    assert call("plan", "check", plan).refused() == f"no file matches {missing}; check the path"
    write_plan(tmp_path, scripted(prompts={"paths": ["p" * 300 + ".jsonl"]}))
    assert call("plan", "check", plan).refused().endswith("File name too long; check the path")


def test_plan_schema_explains_every_key() -> None:
    done = call("plan", "schema")
    assert (done.code, done.err) == (0, "")
    schema = json.loads(done.out)
    assert schema == SCHEMA
    tables = [schema, *(table for table in schema["$defs"].values() if "properties" in table)]
    for table in tables:
        for name, key in table["properties"].items():
            # a description that its table says as well is left to the table
            told = key if "$ref" not in key else schema["$defs"][key["$ref"].rpartition("/")[2]]
            assert key.get("description") or told["description"], (table["title"], name)
            assert "default" in key or name in table["required"], (table["title"], name)
