"""What TensorBoard and Weights & Biases are told; the latter by a stand-in, for it is optional."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import quiet, small_trainer

from pipeline.errors import InputError
from training.course import LoopSettings
from training.metrics import read_metrics
from training.track import Tracker, TrackSettings, check_trackers, open_trackers
from training.trainer import Told

_PROTO: Any = import_module("tensorboardX.proto.event_pb2")  # made at run time

LOOP = LoopSettings(steps=5, batch=2, checkpoint_every=2)
PLACE = "s3://bucket/small"

STAND_IN = """
import json, pathlib

class Error(Exception):
    pass

class Image:
    def __init__(self, picture):
        self.size = picture.shape

class Run:
    def __init__(self, folder):
        self.file = pathlib.Path(folder) / "told.jsonl"
        self.steps = {}

    def define_metric(self, name, step_metric=None):
        self.steps[name] = step_metric

    def log(self, numbers):
        assert self.steps == {"step": None, "*": "step"}
        plain = {k: v.size if isinstance(v, Image) else v for k, v in numbers.items()}
        with self.file.open("a") as file:
            file.write(json.dumps(plain) + "\\n")

    def finish(self):
        with self.file.open("a") as file:
            file.write(json.dumps({"finished": True}) + "\\n")

def init(project, name, id, resume, dir, config):
    started = pathlib.Path(dir) / "started.jsonl"
    with started.open("a") as file:
        file.write(json.dumps([project, name, id, resume, config]) + "\\n")
    return Run(dir)
"""


def _events(folder: Path) -> list[Any]:
    """Of all event files, in the order of their names."""
    found = []
    for file in sorted((folder / "tensorboard").iterdir()):
        content = file.read_bytes()
        while content:
            size = int.from_bytes(content[:8], "little")
            found.append(_PROTO.Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def _train(folder: Path, settings: TrackSettings, steps_before_stop: int = 99) -> None:
    asked = iter(range(steps_before_stop))

    def opened(step: int) -> list[Tracker]:
        return open_trackers(folder, PLACE, settings, "small", {"a": 1}, step)

    trainer = small_trainer(folder, LOOP, told=Told(open_trackers=opened))
    trainer.run(lambda: next(asked, None) is None, quiet)


def test_tensorboard_has_every_number_of_the_record(tmp_path: Path):
    _train(tmp_path, TrackSettings())
    shown: dict[int, dict[str, float]] = {}
    for event in _events(tmp_path):
        for value in event.summary.value:
            shown.setdefault(event.step, {})[value.tag] = value.simple_value
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert len(lines) == 6
    for line in lines:
        wanted = {name: number for name, number in line.items() if name != "step"}
        assert shown[line["step"]] == pytest.approx(wanted, rel=1e-6)


def test_a_resumed_run_hides_what_it_does_again(tmp_path: Path):
    _train(tmp_path, TrackSettings(), steps_before_stop=3)
    before = len(_events(tmp_path))
    _train(tmp_path, TrackSettings())
    starts = [e for e in _events(tmp_path)[before:] if e.HasField("session_log")]
    assert [(e.session_log.status, e.step) for e in starts] == [(_PROTO.SessionLog.START, 4)]


def test_weights_and_biases_gets_the_same_as_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    settings = TrackSettings(tensorboard=False, wandb_project="videos")
    _train(tmp_path, settings, steps_before_stop=3)
    _train(tmp_path, settings)
    (elsewhere := tmp_path / "elsewhere").mkdir()  # where another machine works on it
    open_trackers(elsewhere, PLACE, settings, "small", {"a": 1}, 5)
    sys.modules.pop("wandb")
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [line for line in told if "step" in line] == read_metrics(tmp_path / "metrics.jsonl")
    assert told[-1] == {"finished": True}
    started = (tmp_path / "started.jsonl").read_text().splitlines()
    assert len(started) == 2
    assert started[0] == started[1] == (elsewhere / "started.jsonl").read_text().rstrip()
    project, name, _, resume, config = json.loads(started[0])
    assert (project, name, resume, config) == ("videos", "small", "allow", {"a": 1})


def test_pictures_are_shown(tmp_path: Path):
    (tracker,) = open_trackers(tmp_path, str(tmp_path), TrackSettings(), "small", {}, 0)
    tracker.show(3, "validation", np.full((4, 6, 3), 200, np.uint8))
    tracker.close()
    (image,) = [v.image for e in _events(tmp_path) for v in e.summary.value if e.step == 3]
    assert (image.height, image.width, image.colorspace) == (4, 6, 3)


def test_a_package_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"track\.wandb_project: wandb cannot be imported .* pip"):
        check_trackers(TrackSettings(wandb_project="videos"))
    check_trackers(TrackSettings())


def test_nobody_being_logged_in_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="wandb is optional")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = TrackSettings(tensorboard=False, wandb_project="videos")
    with pytest.raises(InputError, match=r"wandb cannot begin: .* set WANDB_MODE=offline"):
        open_trackers(tmp_path, PLACE, settings, "small", {}, 0)
