"""A lease keeps a second worker off, and never outlives its holder for long."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import lease, storage
from pipeline.lease import Lease, LeaseHeldError

HOLD = """
import sys, time
from pipeline.lease import Lease
with Lease(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "lease.json")


def rewrite(url: str, **changes: object) -> None:
    path = Path(url)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fall_silent(url: str, seconds: float) -> None:
    """As if nothing had been heard for so long, by the clock of the file system."""
    then = time.time() - seconds
    os.utime(url, (then, then))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_taker_is_told_who_holds_it(url: str) -> None:
    with Lease(url), pytest.raises(LeaseHeldError, match=f"held by process {os.getpid()} on "):
        Lease(url).__enter__()
    with Lease(url):
        assert Path(url).exists()
    assert not Path(url).exists()


def test_it_is_given_back_when_the_work_fails(url: str) -> None:
    with pytest.raises(ZeroDivisionError), Lease(url):
        raise ZeroDivisionError
    assert not Path(url).exists()


def test_of_many_takers_one_gets_it(url: str) -> None:
    got, together = [], threading.Barrier(8)

    def take() -> None:
        mine = Lease(url)
        together.wait()
        try:
            mine.__enter__()
        except LeaseHeldError:
            return
        got.append(mine)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].__exit__(None, None, None)


def test_a_killed_process_of_this_machine_holds_nothing(url: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LeaseHeldError, match=f"process {holder.pid}"):
        Lease(url).__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped yet
    with Lease(url):
        pass
    holder.wait()
    holder.stdout.close()


def test_a_process_id_that_came_again_holds_nothing(url: str) -> None:
    held = Lease(url).__enter__()
    rewrite(url, started=1.0)
    with Lease(url):
        pass
    held.__exit__(None, None, None)


def test_a_holder_elsewhere_is_believed_until_it_falls_silent(url: str) -> None:
    held = Lease(url).__enter__()
    rewrite(url, machine="another", pid=1 << 22, host="far")
    with pytest.raises(LeaseHeldError, match="on far"):
        Lease(url).__enter__()
    fall_silent(url, lease.STALE_S + 1)
    with Lease(url):
        held.__exit__(None, None, None)
        assert Path(url).exists()  # the one that lost it did not take it from the new holder


@pytest.mark.parametrize("minutes", [-90, 90])
def test_a_holder_whose_clock_is_wrong_is_believed_and_does_not_hold_for_ever(
    url: str, minutes: int
) -> None:
    held = Lease(url).__enter__()
    there = time.time() + 60 * minutes
    rewrite(url, machine="another", host="far", since=there, renewed=there)
    with pytest.raises(LeaseHeldError, match=r"on far .*heard of 0 s ago"):
        Lease(url).__enter__()
    fall_silent(url, lease.STALE_S + 1)
    with Lease(url):
        held.__exit__(None, None, None)
        assert [path.name for path in Path(url).parent.iterdir()] == ["lease.json"]


def test_in_an_object_store_the_stores_clock_counts() -> None:
    url = "memory://leases/lease.json"
    with Lease(url, "score of runs/one"):
        holder = json.loads(storage.read(url)) | {"machine": "another", "renewed": 0.0}
        storage.write(url, json.dumps(holder).encode())
        with pytest.raises(LeaseHeldError, match=r"\(score of runs/one\), heard of 0 s ago"):
            Lease(url).__enter__()


def test_a_lease_of_an_older_version_is_believed_too(url: str) -> None:
    with Lease(url):
        holder = json.loads(Path(url).read_text())
        del holder["doing"]
        Path(url).write_text(json.dumps(holder))
        with pytest.raises(LeaseHeldError):
            Lease(url).__enter__()


def test_it_is_renewed_while_it_is_held(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    with Lease(url):
        first = json.loads(Path(url).read_text())["renewed"]
        until(lambda: json.loads(Path(url).read_text())["renewed"] > first)


def test_a_lost_lease_is_given_up_with_a_warning(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    with caplog.at_level(logging.WARNING), Lease(url):
        Path(url).unlink()
        until(lambda: "was lost" in caplog.text)
    assert not Path(url).exists()
