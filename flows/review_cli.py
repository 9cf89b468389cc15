"""The commands under `prefinery review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    help="Put pairs to people in Label Studio, and bring their votes back.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's name.")]
Root = Annotated[
    Path, typer.Option("--root", metavar="DIR", help="The store's folder.", envvar="PREFINERY_ROOT")
]
Url = Annotated[
    str | None,
    typer.Option(
        help="A Label Studio server; its token is read from LABEL_STUDIO_API_KEY. None: this "
        "store's, else the campaign's."
    ),
]
STORE = Path("store")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def serve(
    root: Root = STORE,
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8090,
) -> None:
    """Run a Label Studio of this store's own, on loopback, until Ctrl-C."""
    from flows import review_command

    review_command.serve(root, port)


@app.command()
def push(
    campaign: Name,
    run: Annotated[str, typer.Option(metavar="RUN", help="What is asked about.")] = "latest",
    kind: Annotated[
        Literal["pairwise", "steps", "spans", "rubric"],
        typer.Option(
            help="The run's review queue, its solutions step by step, errors in its responses, or its "
            "rubrics."
        ),
    ] = "pairwise",
    most: Annotated[
        int, typer.Option(min=1, help="Solutions, responses or rubrics that are asked about.")
    ] = 100,
    overlap: Annotated[int, typer.Option(min=1, help="How many people answer each of those.")] = 1,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="PLAN", help="Ask as this plan's [review] says; none: as before."),
    ] = None,
    root: Root = STORE,
    url: Url = None,
    migrate: Annotated[bool, typer.Option(help="Replace a label config that was edited.")] = False,
    resend: Annotated[bool, typer.Option(help="Also what was deleted on the server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put questions on a run to people; run again, nothing is asked twice."""
    from flows import review_command, review_show

    done = review_command.push_questions(
        root,
        run,
        campaign,
        kind,
        most=most,
        overlap=overlap,
        review=review_command.review_of(plan),
        url=url,
        migrate=migrate,
        resend=resend,
    )
    review_show.show(done, as_json, review_show.pushed)


@app.command()
def pull(
    campaign: Name,
    root: Root = STORE,
    url: Url = None,
    whole: Annotated[bool, typer.Option(help="Read everything again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the votes in: a Parquet file that a plan names under [humans]."""
    from flows import review_command, review_show

    found = review_command.pull_votes(root, campaign, url, whole, False)
    review_show.show(found, as_json, review_show.pulled)


@app.command()
def watch(
    campaign: Name,
    root: Root = STORE,
    url: Url = None,
    every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Longest time between two pulls.")
    ] = 60.0,
    port: Annotated[
        int, typer.Option(min=0, help="Port on loopback that the server calls; 0: a free one.")
    ] = 0,
) -> None:
    """Bring votes in as they are given, until Ctrl-C."""
    from flows import review_watch

    review_watch.watch(root, campaign, url, every, port)


@app.command()
def close(campaign: Name, root: Root = STORE, url: Url = None, as_json: AsJson = False) -> None:
    """Bring the last votes in and take no more questions."""
    from flows import review_command, review_show

    found = review_command.pull_votes(root, campaign, url, True, True)
    review_show.show(found, as_json, review_show.pulled)


@app.command()
def status(campaign: Name, root: Root = STORE, as_json: AsJson = False) -> None:
    """How a campaign stands, by what was pulled last."""
    from flows import review_command, review_show

    review_show.show(review_command.stand(root, campaign), as_json, review_show.status)


@app.command()
def people(
    campaign: Name,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Whose known answers, decisions and queue are looked at."),
    ] = None,
    root: Root = STORE,
    hourly_rate: Annotated[
        float | None,
        typer.Option(min=0, help="Money for an hour; none: what the run's plan says, else 20."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Agreement, quality of each annotator, cost; with a run, what they changed and what is next."""
    from flows import people as command
    from flows import review_show

    found = command.judge_people(root, campaign, run, hourly_rate)
    review_show.show(found, as_json, review_show.people)
