"""The circle of a plan with [review]: votes come in before a run, its queue goes out after it.

People are never waited for, and a server that is away stops nothing: what it has to say comes with the
next run, which a schedule starts.
"""

from __future__ import annotations

import pyarrow.parquet as pq

from annotation.campaign import VOTES
from flows import review_command
from flows.plan import HumansPlan, Plan, ReviewPlan
from flows.progress import Reporter
from pipelines.store import Store
from schemas.errors import UserError


def with_votes(plan: Plan, review: ReviewPlan, store: Store, reporter: Reporter) -> Plan:
    """The plan with the campaign's votes as they are now."""
    folder = review_command.folder_of(store, review.campaign)
    votes = folder / VOTES
    if folder.exists():
        try:
            found = review_command.pull_votes(store.root, review.campaign, review.url, False, False)
            reporter.say(f"review {review.campaign}: {found['votes']} votes")
        except UserError as error:
            reporter.say(
                f"review {review.campaign}: going on with the votes that are here: {error}"
            )
    if not votes.exists() or not pq.read_metadata(votes).num_rows:
        return plan
    given = plan.humans
    paths = (*(given.paths if given is not None else ()), str(votes))
    humans = HumansPlan(paths=paths) if given is None else given.model_copy(update={"paths": paths})
    return plan.model_copy(update={"humans": humans})


def put_to_people(store: Store, run_id: str, review: ReviewPlan, reporter: Reporter) -> None:
    """Push the run's queue; what is there already is not asked again."""
    try:
        done = review_command.push_questions(store.root, run_id, review.campaign, review=review)
    except UserError as error:
        reporter.say(f"review {review.campaign}: the queue stays here for now: {error}")
        return
    reporter.say(
        f"review {review.campaign}: {done['new']} new questions, {done['already']} were there"
    )
