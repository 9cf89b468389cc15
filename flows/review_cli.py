"""The commands under `prefinery review`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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
        help="A Label Studio server; its token is read from LABEL_STUDIO_API_KEY. None: this store's."
    ),
]
STORE = Path("store")


def _print(found: dict[str, Any]) -> None:
    print(json.dumps(found, indent=2, default=str))


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
    run: Annotated[str, typer.Option(metavar="RUN", help="Whose queue.")] = "latest",
    root: Root = STORE,
    url: Url = None,
    migrate: Annotated[bool, typer.Option(help="Replace a label config that was edited.")] = False,
    resend: Annotated[bool, typer.Option(help="Also what was deleted on the server.")] = False,
) -> None:
    """Put a run's review queue to people; run again, nothing is asked twice."""
    from flows import review_command

    _print(review_command.push_queue(root, run, campaign, url, migrate, resend))


@app.command()
def pull(
    campaign: Name,
    root: Root = STORE,
    url: Url = None,
    whole: Annotated[bool, typer.Option(help="Read everything again.")] = False,
) -> None:
    """Bring the votes in: a Parquet file that a plan names under [humans]."""
    from flows import review_command

    _print(review_command.pull_votes(root, campaign, url, whole, False))


@app.command()
def close(campaign: Name, root: Root = STORE, url: Url = None) -> None:
    """Bring the last votes in and take no more questions."""
    from flows import review_command

    _print(review_command.pull_votes(root, campaign, url, True, True))


@app.command()
def status(campaign: Name, root: Root = STORE) -> None:
    """How a campaign stands, by what was pulled last."""
    from flows import review_command

    _print(review_command.stand(root, campaign))


@app.command()
def people(
    campaign: Name,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Whose queue says what is next.")
    ] = None,
    root: Root = STORE,
    hourly_rate: Annotated[float, typer.Option(min=0, help="Money for an hour.")] = 20.0,
) -> None:
    """Agreement, quality of each annotator, cost, and what the next labels are worth."""
    from flows import review_command

    _print(review_command.judge_people(root, campaign, run, hourly_rate))
