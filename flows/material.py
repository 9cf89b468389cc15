"""What the judging half of a run works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from flows.runner import digests
from pipelines.store import Published


@dataclass(frozen=True)
class Material:
    """What is judged, and what is known of it; all in aligned shards."""

    prompts: Published
    responses: Published
    verdicts: Published
    labels: Published | None
    paired: Published

    def by_name(self) -> dict[str, Published | None]:
        """Its outputs, as stages name their inputs."""
        return {
            "prompts": self.prompts,
            "responses": self.responses,
            "verdicts": self.verdicts,
            "labels": self.labels,
            "pairs": self.paired,
        }

    def digests(self) -> dict[str, str]:
        """Inputs of a stage that reads all of it."""
        return digests(**self.by_name())


@dataclass(frozen=True)
class Votes:
    """The outputs that hold votes on pairs, by their names in the run; in aligned shards."""

    by_name: Mapping[str, Published]

    def digests(self) -> dict[str, str]:
        """Inputs of a stage that reads all of them."""
        return {
            name if name == "judge" else f"votes.{name}": made.manifest.digest
            for name, made in self.by_name.items()
        }

    def shard(self, unit: int) -> pa.Table:
        """All votes on the pairs of a shard."""
        return pa.concat_tables([made.shard("votes", unit) for made in self.by_name.values()])

    def table(self) -> pa.Table:
        """All votes."""
        return pa.concat_tables([made.table("votes") for made in self.by_name.values()])
