"""What a run file says is either understood or refused in one line that helps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pipeline import config
from pipeline.errors import InputError
from pipeline.filters import Filter, FilterChange


@dataclass(frozen=True, slots=True)
class Motion:
    """A table of the run file below."""

    backend: Literal["cpu", "reference"] = "cpu"
    interval_s: float = 0.5
    sizes: tuple[int, ...] = (320, 576)
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """One of a list of tables."""

    gpus: float
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A run file in small."""

    out: str = "runs/x"
    unit_size: int = 32
    motion: Motion = Motion()
    workers: tuple[Worker, ...] = ()
    filters: Mapping[str, Mapping[str, FilterChange]] = field(default_factory=dict)
    whole: Mapping[str, Filter] = field(default_factory=dict)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


FULL = """
out = "runs/y"
[motion]
interval_s = 1
sizes = [64]
limit = 2.5
[[workers]]
gpus = 1
wait = true
[filters.motion]
top5 = {min = 0.02, absent = "pass"}
"camera motion" = {one_of = ["Static", 1, true]}
"""


def test_a_run_file_changes_what_it_names_and_nothing_else(path: Path) -> None:
    path.write_text(FULL)
    assert config.load(str(path), Run) == Run(
        out="runs/y",
        motion=Motion(interval_s=1.0, sizes=(64,), limit=2.5),
        workers=(Worker(1.0, wait=True),),
        filters={
            "motion": {
                "top5": FilterChange(min=0.02, absent="pass"),
                "camera motion": FilterChange(one_of=("Static", 1, True)),
            }
        },
    )


def test_what_is_dumped_is_loaded_again(path: Path) -> None:
    path.write_text(FULL)
    run = config.load(str(path), Run, {"out": "runs/köln"})
    path.write_text(config.dump(run))
    assert config.load(str(path), Run) == run


def test_the_command_line_overrides_the_file(path: Path) -> None:
    path.write_text('out = "a"\nunit_size = 3')
    run = config.load(str(path), Run, {"out": "b", "unit_size": None, "motion.interval_s": 2.0})
    assert (run.out, run.unit_size, run.motion.interval_s) == ("b", 3, 2.0)


def test_without_a_file_the_defaults_hold() -> None:
    assert config.load(None, Run, {"out": "b"}) == Run(out="b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[motoin]\nlimit = 1", "unknown key motoin; did you mean motion?"),
        ("[motion]\ninterval = 1", "unknown key motion.interval; did you mean interval_s?"),
        ("[motion]\nxyz = 1", "known here: backend, interval_s, sizes, limit"),
        ("[[workers]]\ngpus = 1\nwaits = true", r"workers[0].waits; did you mean wait?"),
        ("[filters.m]\na = {mim = 1}", "filters.m.a.mim; did you mean min?"),
        ("unit_size = 1.5", "unit_size: found 1.5, wanted a whole number"),
        ('unit_size = "3"', 'unit_size: found "3", wanted a whole number'),
        ("out = 3", "out: found 3, wanted text"),
        ("motion = 3", "motion: found 3, wanted a table"),
        ('[motion]\nbackend = "gpu"', "found \"gpu\", wanted 'cpu' or 'reference'"),
        ("[motion]\nsizes = 3", "motion.sizes: found 3, wanted a list"),
        ("[motion]\nsizes = [1, true]", "motion.sizes[1]: found true, wanted a whole number"),
        ('[motion]\nlimit = "x"', 'motion.limit: found "x", wanted a number'),
        ("[[workers]]\nwait = 1\ngpus = 1", "workers[0].wait: found 1, wanted true or false"),
        ("[[workers]]\nwait = true", "workers[0]: gpus is missing"),
        ("[whole]\na = {min = 3, max = 2}", "whole.a: min 3 is above max 2"),
        ("[filters.m]\na = {one_of = [1.5]}", "one_of[0]: found 1.5, wanted text or true"),
        ("out = \nunit_size = 3", "not TOML: Invalid value (at line 1"),
        ('out = "a"\nunit_size = ?', "at line 2"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        config.load(str(path), Run)
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_a_run_file_that_cannot_be_read_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="no such run file"):
        config.load(str(path), Run)
    with pytest.raises(InputError, match="cannot be read as a run file"):
        config.load(str(path.parent), Run)
    path.write_bytes(b'out = "\xff"')
    with pytest.raises(InputError, match="cannot be read as a run file"):
        config.load(str(path), Run)


def test_an_override_that_does_not_fit_is_refused(path: Path) -> None:
    path.write_text("out = 'a'")
    with pytest.raises(InputError, match="out is a value there, wanted a table"):
        config.load(str(path), Run, {"out.deeper": 1})
    with pytest.raises(InputError, match=r"unknown key motion\.limits; did you mean limit"):
        config.load(None, Run, {"motion.limits": 1})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('out = "s3://name:s3cr3t@bucket/runs"', "out"),
        ('[[workers]]\nplace = "https://name:s3cr3t@host/v1"', r"workers\.0\.place"),
    ],
)
def test_a_url_with_credentials_is_refused_and_not_repeated(
    path: Path, text: str, key: str
) -> None:
    path.write_text(text)
    with pytest.raises(InputError, match=rf"{key}: found credentials in a url") as refused:
        config.load(str(path), Run)
    assert "s3cr3t" not in str(refused.value)
