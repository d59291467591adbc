"""A person sees how far a pass is, and so does `status.json`."""

import io
import json
import re

import pytest
from faulty_proxy import SLOW, Faults

from pipeline import storage
from pipeline.progress import Progress


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    return Clock()


def read(path):
    return json.loads(path.read_text())


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock):
    log = io.StringIO()
    with Progress("motion", 40, None, stream=log, clock=clock) as progress:
        for _ in range(40):
            clock.now += 1
            progress.update(kept=1)
    lines = log.getvalue().splitlines()
    assert lines[0] == "motion 10/40, 1/s, 00:30 left: 10 kept, 0 rejected, 0 failed"
    assert lines[-1] == "motion done: 40/40 in 00:40, 1/s: 40 kept, 0 rejected, 0 failed"
    assert len(lines) == 5
    assert "\r" not in log.getvalue()


def test_a_terminal_keeps_one_line_and_the_notes_above_it(clock):
    screen = Terminal()
    with Progress("motion", 2, None, stream=screen, clock=clock) as progress:
        clock.now += 1
        progress.update(2, rejected=1, failed=1)
        progress.note("worker 3 was replaced")
    whole_lines = [line.rpartition("\r")[2] for line in screen.getvalue().split("\n")]
    assert [line for line in whole_lines if line.strip()] == [
        "worker 3 was replaced",
        "motion done: 2/2 in 00:01, 2/s: 0 kept, 1 rejected, 1 failed",
    ]


def test_status_says_what_the_line_says(tmp_path, clock):
    status = tmp_path / "run" / "status.json"
    with Progress("score", 100, str(status), "ray", io.StringIO(), clock) as progress:
        assert read(status)["state"] == "running"
        clock.now += 5
        progress.update(20, kept=12, rejected=7, failed=1)
        told = read(status)
        assert (told["pass"], told["runner"], told["state"]) == ("score", "ray", "running")
        assert (told["done"], told["total"], told["rate"], told["eta_s"]) == (20, 100, 4.0, 20.0)
        assert (told["kept"], told["rejected"], told["failed"]) == (12, 7, 1)
        clock.now += 1
        progress.update(20)
        assert read(status)["done"] == 20, "written at most every two seconds"
        progress.update(60)
    assert (read(status)["done"], read(status)["state"]) == (100, "done")


@pytest.mark.parametrize(
    ("error", "state"),
    [(ValueError, "failed"), (KeyboardInterrupt, "stopped"), (SystemExit, "stopped")],
)
def test_status_says_how_a_pass_ended(tmp_path, error, state):
    status = tmp_path / "status.json"
    with pytest.raises(error), Progress("score", 1, str(status), stream=io.StringIO()):
        raise error
    assert read(status)["state"] == state


def test_a_pass_that_was_drained_is_stopped_not_done(tmp_path):
    status = tmp_path / "status.json"
    with Progress("score", 3, str(status), stream=io.StringIO()) as progress:
        progress.update(2)
    assert read(status)["state"] == "stopped"


def test_the_rate_follows_the_last_minute(clock):
    progress = Progress("score", 10_000, None, stream=io.StringIO(), clock=clock)
    for seconds, clips in [(1, 10)] * 300 + [(1, 2)] * 61:
        clock.now += seconds
        progress.update(clips)
    assert progress.rate() == pytest.approx(2, rel=0.1)


def test_slow_clips_have_a_rate_too(clock):
    progress = Progress("segment", 10, None, stream=io.StringIO(), clock=clock)
    for _ in range(3):
        clock.now += 200
        progress.update()
    assert re.search(r"3/10, 0.005/s, 23:20 left", progress.line())


def test_quick_clips_have_a_rate_that_can_be_read(clock):
    progress = Progress("entities", 100_000, None, stream=io.StringIO(), clock=clock)
    clock.now += 10
    progress.update(15_000)
    assert "15000/100000, 1,500/s, 00:57 left" in progress.line()


def test_nothing_to_do_is_done_at_once():
    log = io.StringIO()
    with Progress("score", 0, None, stream=log):
        pass
    assert log.getvalue() == "score done: 0/0 in 00:00: 0 kept, 0 rejected, 0 failed\n"


def test_the_error_that_ended_a_pass_is_not_hidden_by_a_status_that_cannot_be_written(tmp_path):
    folder = tmp_path / "run"
    progress = Progress("score", 1, str(folder / "status.json"), stream=io.StringIO())
    with pytest.raises(ValueError, match="the first"):
        fail_after_losing(folder, progress)


def fail_after_losing(folder, progress):
    with progress:
        (folder / "status.json").unlink()
        folder.rmdir()
        folder.write_text("a file in the way")
        raise ValueError("the first error")


def test_a_store_that_is_slow_holds_up_no_pass(on_s3, clock):
    store = on_s3()
    url = f"{store.url}/slow/status.json"
    faults = store.suffer(Faults(of=("PUT",), planned=["", SLOW], slow_s=1.0))
    with Progress("score", 10**9, url, stream=io.StringIO(), clock=clock) as progress:
        while faults.happened[SLOW] == 0:
            clock.now += 3
            progress.update()
        for _ in range(20):
            clock.now += 3
            progress.update()
        assert faults.seen["PUT"] == 2, "none waits behind the one that is on its way"
    assert json.loads(storage.read(url))["state"] == "stopped"


def test_what_earlier_runs_did_is_counted_and_not_in_the_rate(clock):
    log = io.StringIO()
    with Progress("train", 100, None, stream=log, clock=clock).after(60) as progress:
        for _ in range(40):
            clock.now += 1
            progress.update()
    lines = log.getvalue().splitlines()
    assert lines[0] == "train 70/100, 1/s, 00:30 left: 0 kept, 0 rejected, 0 failed"
    assert lines[-1] == "train done: 100/100 in 00:40, 1/s: 0 kept, 0 rejected, 0 failed"
