"""Where a run's numbers and pictures are shown: TensorBoard, and Weights & Biases when asked for.

`metrics.jsonl` is the record; these are copies of it, and nothing is read back from them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tensorboardX import SummaryWriter

from pipeline.errors import InputError

FOLDER = "tensorboard"
"""Of a training's folder."""
_FLUSH_S = 10
"""A kill costs the picture of so many seconds; the record has them."""


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """tensorboard: whether event files are written. wandb_project: of Weights & Biases, "" for
    none; where it sends to, and whether at all, is said by its own environment variables.
    """

    tensorboard: bool = True
    wandb_project: str = ""


class Tracker(Protocol):
    """Shows what it is told."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a step."""
        ...

    def show(self, step: int, name: str, picture: np.ndarray) -> None:
        """picture: (H, W, 3) uint8 RGB."""
        ...

    def close(self) -> None:
        """Everything is written when this returns."""
        ...


class TensorBoard:
    """Event files below a training's folder.

    step: what the run goes on from; TensorBoard hides what older files have after it.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # By the second alone two files may have one name, and the later one would be all there is.
        suffix = f".{step + 1:08d}.{secrets.token_hex(4)}"
        self._writer = SummaryWriter(
            str(folder / FOLDER),
            purge_step=step + 1,
            flush_secs=_FLUSH_S,
            filename_suffix=suffix,
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """See Tracker."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)

    def show(self, step: int, name: str, picture: np.ndarray) -> None:
        """See Tracker."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """See Tracker."""
        self._writer.close()


class WeightsAndBiases:
    """One run of a project, the same when the training goes on."""

    def __init__(
        self, folder: Path, place: str, project: str, name: str, identity: Mapping[str, Any]
    ) -> None:
        """place: of the training, the same each time; identity: all that the numbers depend on: the
        two say which run this is.

        Raises InputError when the package is missing, or cannot begin: without a login, say.
        """
        self._wandb = _wandb()
        known = json.dumps([place, identity], sort_keys=True, default=str)
        try:
            self._run = self._wandb.init(
                project=project,
                name=name,
                id=hashlib.sha256(known.encode()).hexdigest()[:16],
                resume="allow",
                dir=str(folder),
                config=dict(identity),
            )
        except self._wandb.Error as error:
            raise InputError(
                f"track.wandb_project: wandb cannot begin: {' '.join(str(error).split())}; see to "
                "that, set WANDB_MODE=offline, or leave the project out"
            ) from error
        # Its own counter only rises: steps that are done again after a kill would be dropped.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """See Tracker."""
        self._run.log({"step": step, **numbers})

    def show(self, step: int, name: str, picture: np.ndarray) -> None:
        """See Tracker."""
        self._run.log({"step": step, name: self._wandb.Image(picture)})

    def close(self) -> None:
        """See Tracker."""
        self._run.finish()


def check_trackers(settings: TrackSettings) -> None:
    """Raises InputError when a package is missing: before anything long has begun."""
    if settings.wandb_project:
        _wandb()


def open_trackers(
    folder: Path,
    place: str,
    settings: TrackSettings,
    name: str,
    identity: Mapping[str, Any],
    step: int,
) -> list[Tracker]:
    """Those that are wanted, for a run that goes on from this step. Raises InputError.

    folder: where they write; place: of the training, also when it is worked on elsewhere.
    """
    trackers: list[Tracker] = []
    if settings.tensorboard:
        trackers.append(TensorBoard(folder, step))
    if settings.wandb_project:
        trackers.append(WeightsAndBiases(folder, place, settings.wandb_project, name, identity))
    return trackers


def _wandb() -> Any:
    try:
        return import_module("wandb")
    except ImportError as error:
        raise InputError(
            f"track.wandb_project: wandb cannot be imported ({error}); pip install wandb, or leave "
            "the project out"
        ) from error
