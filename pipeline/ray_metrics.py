"""What a pass on Ray says to Ray's metrics, for Prometheus and Grafana (cluster/grafana.json).

Beside the runner the only file of this room that knows Ray. Ray puts `ray_` in front of the names.
"""

from __future__ import annotations

from collections import Counter

from ray.util.metrics import Counter as Sum
from ray.util.metrics import Gauge

from pipeline.clip import Failed
from pipeline.progress import Progress
from pipeline.work import Result

MEASURED = "measured"
"""Stands beside the codes of failures in `customvideox_outcomes`."""


class PassMetrics:
    """The clips of a pass: what became of them, how many are left, how fast they go."""

    def __init__(self) -> None:
        self._clips = Sum("customvideox_clips", "Clips done by this run.", ("stage_pass", "fate"))
        self._left = Gauge("customvideox_clips_left", "Clips of the pass to do.", ("stage_pass",))
        self._rate = Gauge("customvideox_clips_per_second", "Over a minute.", ("stage_pass",))
        self._told: Counter[tuple[str, str]] = Counter()

    def look(self, shown: Progress) -> None:
        """Tells how far a pass is."""
        name = {"stage_pass": shown.pass_name}
        for fate in ("kept", "rejected", "failed"):
            new = getattr(shown, fate) - self._told[shown.pass_name, fate]
            if new > 0:
                self._clips.inc(new, {**name, "fate": fate})
                self._told[shown.pass_name, fate] += new
        self._left.set(shown.total - shown.done, name)
        self._rate.set(shown.rate(), name)


class FleetMetrics:
    """The workers: how many, what they have, what they return and spend their time on.

    A unit that two workers did (a straggler was overtaken) counts twice here, not in PassMetrics.
    """

    def __init__(self) -> None:
        self._workers = Gauge("customvideox_workers", "Workers by state.", ("state",))
        self._units = Gauge("customvideox_units_in_flight", "Units that workers have.")
        self._lost = Sum("customvideox_workers_lost", "Workers that were replaced.", ("node",))
        self._outcomes = Sum("customvideox_outcomes", "Outcomes by code.", ("stage", "code"))
        self._seconds = Sum("customvideox_worker_seconds", "Workers' time.", ("stage",))

    def look(self, placed: int, waiting: int, units: int) -> None:
        """Tells what the fleet is like now."""
        self._workers.set(placed, {"state": "placed"})
        self._workers.set(waiting, {"state": "waiting"})
        self._units.set(units)

    def lost(self, node: str) -> None:
        """Tells of a worker that is replaced."""
        self._lost.inc(1, {"node": node or "none yet"})

    def came_back(self, result: Result) -> None:
        """Tells what a unit came to."""
        codes = Counter(
            (stage, outcome.code if isinstance(outcome, Failed) else MEASURED)
            for _, stage, outcome in result.outcomes
        )
        for (stage, code), count in codes.items():
            self._outcomes.inc(count, {"stage": stage, "code": code})
        for stage, seconds in result.spent.items():
            if seconds > 0:
                self._seconds.inc(seconds, {"stage": stage})
