"""Which judges vote: those of what a run knows already, and a panel that is asked."""

from __future__ import annotations

from pipelines.judge.derived import JudgeConfig as JudgeConfig
