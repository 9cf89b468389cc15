"""The command `prefinery`. Data goes to stdout, talk to stderr; a user's mistake exits with 2."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.review_cli import app as review_app

app = typer.Typer(
    name="prefinery",
    help="Prefinery, a preference refinery: prompts in, curated preferences and reward models out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
plan_app = typer.Typer(help="Check a plan, or explain its keys.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
rubrics_app = typer.Typer(
    help="A run's rubrics, as files to edit and as training data.", no_args_is_help=True
)
app.add_typer(rubrics_app, name="rubrics")
app.add_typer(review_app, name="review")

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan: a TOML file.")]
Root = Annotated[
    Path, typer.Option("--root", metavar="DIR", help="The store's folder.", envvar="PREFINERY_ROOT")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or `latest`.")
]
STORE = Path("store")


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    from schemas.errors import UserError

    # Read when torch is loaded. Threads that spin while they wait for each other make decoding many
    # times slower as soon as anything else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the run shows its own
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.basicConfig(level=logging.WARNING, format="prefinery: %(message)s", stream=sys.stderr)
    try:
        app()
    except UserError as error:
        print(f"prefinery: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer makes exit code 130 of an interrupt.
        if isinstance(ended, SystemExit) and ended.code != 130:
            raise
        print(
            "prefinery: stopped; what is finished is kept: the same command goes on from there",
            file=sys.stderr,
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


@app.command()
def run(plan: PlanFile, root: Root = STORE, as_json: AsJson = False) -> None:
    """Run a plan to its end, or go on where it stopped."""
    _job(plan, root, "all", as_json)


@app.command()
def curate(plan: PlanFile, root: Root = STORE, as_json: AsJson = False) -> None:
    """Run a plan up to the emitted dataset."""
    _job(plan, root, "curate", as_json)


def _job(plan: Path, root: Path, job: Literal["curate", "train", "all"], as_json: bool) -> None:
    from flows import session
    from flows.orchestrate import with_prefect
    from flows.progress import Reporter
    from flows.show import next_steps

    reporter = Reporter()
    summary = session.start(plan, root, job, reporter, with_prefect(job, plan, reporter))
    if as_json:
        print(session.as_json(summary))
    next_steps(reporter, summary, root)


@app.command()
def train(
    what: Annotated[
        Path, typer.Argument(metavar="PLAN|DATASET", help="A plan, or an emitted dataset's folder.")
    ],
    root: Root = STORE,
    base: Annotated[str | None, typer.Option(help="Model to start from (with a dataset).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the trained model (with a dataset).")
    ] = None,
    kind: Annotated[
        Literal["reward", "steps"], typer.Option(help="What to train (with a dataset).")
    ] = "reward",
    seed: Annotated[int, typer.Option(min=0, help="Randomness (with a dataset).")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train what a plan says, or a model on any emitted dataset."""
    from schemas.errors import UserError

    if not what.is_dir():
        _job(what, root, "train", as_json)
        return
    if base is None or out is None:
        raise UserError("train DATASET needs --base MODEL and --out DIR")
    from flows.learning import train_on_folder

    print(json.dumps(train_on_folder(what, base, out, kind, seed), indent=2))


@app.command()
def evaluate(
    what: Annotated[
        Path, typer.Argument(metavar="PLAN|DATASET", help="A plan, or an emitted dataset's folder.")
    ],
    root: Root = STORE,
    reward: Annotated[
        Path | None, typer.Option(help="A reward model's folder (with a dataset).")
    ] = None,
    split: Annotated[str, typer.Option(help="Which rows (with a dataset).")] = "test",
    as_json: AsJson = False,
) -> None:
    """Evaluate what a plan trained, or any scalar reward model on an emitted dataset's pairs."""
    from schemas.errors import UserError

    if not what.is_dir():
        _job(what, root, "all", as_json)
        return
    if reward is None:
        raise UserError("evaluate DATASET needs --reward MODEL_FOLDER")
    from flows.learning import evaluate_on_folder

    print(json.dumps(evaluate_on_folder(what, reward, split), indent=2))


@plan_app.command("check")
def plan_check(plan: PlanFile) -> None:
    """Validate a plan and the files it names, without running anything."""
    from flows import plan as plans
    from flows.engines import identify
    from pipelines import ingest

    loaded = plans.load(plan)
    for engine in loaded.engines.values():
        if engine.kind != "openai":  # servers are asked by `doctor`, not by a check of a file
            identify(engine)
    ingest.inputs_digest(loaded.prompts)
    if loaded.evaluate is not None:
        ingest.inputs_digest(loaded.evaluate.prompts)
    print(f"{plan}: fine ({loaded.name}: engines {', '.join(loaded.engines)})")


@plan_app.command("schema")
def plan_schema() -> None:
    """Print a plan's JSON schema: every key, its type, its default and what it means."""
    from flows.plan import Plan

    print(json.dumps(Plan.model_json_schema(), indent=2))


@app.command()
def runs(root: Root = STORE, as_json: AsJson = False) -> None:
    """List the runs of a store, last tried first."""
    from flows import show

    show.list_runs(root, as_json)


@app.command()
def show(run: RunId = "latest", root: Root = STORE, as_json: AsJson = False) -> None:
    """Show a run: its stages, rows, rejects and figures, and where its files are."""
    from flows import show as shows

    shows.show_run(root, run, as_json)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL, such as: select * from decisions limit 5")],
    run: Annotated[str, typer.Option(metavar="RUN", help="Which run.")] = "latest",
    root: Root = STORE,
    as_json: AsJson = False,
) -> None:
    """Ask a run's tables by SQL (DuckDB, read-only, no access to other files)."""
    from flows import show

    show.print_query(root, run, sql, as_json)


@app.command()
def report(run: RunId = "latest", root: Root = STORE) -> None:
    """Make a run's report page again and print its path."""
    from flows import runs as records
    from flows import session
    from pipelines.store import Store

    store = Store.open(root, create=False)
    print(session.rerender(store, records.load(store, run)))


@app.command()
def steps(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Which run; `latest` for the last.")],
    unit: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A prompt, response, solution or labels id, or how it begins."
        ),
    ],
    root: Root = STORE,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("steps.html"),
) -> None:
    """Write the page of a question's step labels: its tree, solutions, rollouts and what was asked."""
    from flows import runs as records
    from flows.page import write_page
    from flows.steps_page import page_for
    from pipelines.store import Store
    from schemas.errors import UserError

    if out.is_dir():
        raise UserError(f"{out}: a folder; name a file with --out")
    store = Store.open(root, create=False)
    write_page(page_for(store, records.load(store, run), unit), out)
    print(out)


@rubrics_app.command("write")
def rubrics_write(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the files.")],
    run: Annotated[str, typer.Option(metavar="RUN", help="Which run.")] = "latest",
    root: Root = STORE,
    retired: Annotated[bool, typer.Option(help="Also those that the proof retired.")] = False,
    campaign: Annotated[
        str | None,
        typer.Option(metavar="CAMPAIGN", help="Those that people judged there, as they want them."),
    ] = None,
) -> None:
    """Write a run's rubrics as TOML files, to read, edit and approve; a plan takes them back."""
    from flows import rubric_files

    for path, status in rubric_files.write_files(root, run, out, retired, campaign):
        print(f"{path}  {status}")


@rubrics_app.command("export")
def rubrics_export(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    run: Annotated[str, typer.Option(metavar="RUN", help="Which run.")] = "latest",
    root: Root = STORE,
) -> None:
    """Write Parquet to train rubric generators and judges on, and rubric rewards for RL."""
    from flows import rubric_files

    for name, rows in rubric_files.export(root, run, out).items():
        print(f"{name:<12} {rows:>8,} rows")


@app.command()
def audit(
    datasets: Annotated[
        list[str],
        typer.Argument(metavar="DATASET...", help="Parquet, JSONL or `datasets` folders of pairs."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for what is found.")],
    model: Annotated[
        str, typer.Option(help="Sentence-embedding model: a folder, or its name on the Hub.")
    ],
    action: Annotated[
        Literal["report", "drop", "soften", "flip"],
        typer.Option(help="What to do with labels that are probably wrong."),
    ] = "report",
    prompt: Annotated[str | None, typer.Option(help="Column of the prompt.")] = None,
    chosen: Annotated[str | None, typer.Option(help="Column of the better response.")] = None,
    rejected: Annotated[str | None, typer.Option(help="Column of the worse response.")] = None,
    responses: Annotated[str | None, typer.Option(help="Column of rated responses.")] = None,
    ratings: Annotated[str | None, typer.Option(help="Column of their ratings.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="Column of a judge's score, or CHOSEN:REJECTED; repeatable."),
    ] = None,
    human: Annotated[str | None, typer.Option(help="Column of human labels.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Randomness.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Audit preference data: how likely each label is right, duplicates, leaks, bias; clean it."""
    from flows import audit_command

    found = audit_command.run(
        datasets,
        out,
        model=model,
        action=action,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        responses=responses,
        ratings=ratings,
        judges=judge or (),
        human=human,
        seed=seed,
    )
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print(out / audit_command.PAGE)


@app.command()
def doctor(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN]", help="Also check this plan's engines.")
    ] = None,
    root: Root = STORE,
    as_json: AsJson = False,
) -> None:
    """Check what is installed, disk space, the store and whether a plan's engines answer."""
    from flows.doctor import examine

    sys.exit(examine(plan, root, as_json))


@app.command()
def deploy(
    plan: PlanFile,
    cron: Annotated[str, typer.Option(help="When, as five cron fields, such as '0 3 * * *'.")],
    root: Root = STORE,
    job: Annotated[Literal["curate", "train", "all"], typer.Option(help="Which job.")] = "all",
) -> None:
    """Serve a plan as a Prefect deployment with a schedule (needs PREFECT_API_URL)."""
    from flows.orchestrate import serve
    from flows.progress import Reporter

    serve(plan, root, job, cron, Reporter())


@app.command()
def push(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="An emitted dataset's folder.")
    ],
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="Dataset repository on the Hub.")],
    public: Annotated[bool, typer.Option(help="Make a new repository public.")] = False,
) -> None:
    """Upload an emitted dataset to the Hugging Face Hub (private unless --public)."""
    from pipelines import hub

    url = hub.push(dataset, repo, private=not public, say=lambda text: print(text, file=sys.stderr))
    print(url)


if __name__ == "__main__":
    main()
