"""An object is written once and whole, and read to its last byte, whatever the network does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faulty_proxy import (
    BUSY,
    CUT,
    DENIED,
    ERROR,
    RESET_AFTER,
    RESET_BEFORE,
    SLOW,
    UNKNOWN_KEY,
    UNSUPPORTED,
    Faults,
)
from racing_writers import content

from pipeline import storage
from pipeline.clip_file import local_file
from pipeline.container import DecodeError
from pipeline.errors import InputError, NoPermissionError, StoreError
from pipeline.lease import Lease, LeaseHeldError
from pipeline.shard_reader import read_sample

if TYPE_CHECKING:
    from s3_server import S3Server

    OnS3 = Callable[..., S3Server]

ROOT = Path(__file__).parents[2]
PART = 5 << 20  # the least that S3 takes
SMALL, LARGE = 1_000, 2 * PART + 1_000
PARTS = {"whole_bytes": PART, "part_bytes": PART, "tries": 6, "longest_pause_s": 0.2}
WRITES = ("PUT", "POST")


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_of_eight_processes_that_create_an_object_one_wins(s3: S3Server, size: int) -> None:
    url = f"{s3.url}/race/{size}"
    environment = {**os.environ, **s3.environment(**PARTS), "PYTHONPATH": str(ROOT)}
    race = [sys.executable, str(ROOT / "tests" / "racing_writers.py"), url, str(size)]
    won = subprocess.run(race, env=environment, capture_output=True, text=True, check=True).stdout
    (winner,) = won.split()
    assert s3.objects("race/")[str(size)] == content(size, int(winner))
    assert s3.unfinished() == 0


@pytest.mark.parametrize(
    ("size", "fault", "at"),
    [
        *((SMALL, fault, 0) for fault in (ERROR, BUSY, RESET_BEFORE, RESET_AFTER, SLOW)),
        *((LARGE, RESET_AFTER, at) for at in (0, 1, 4)),  # begin, the first of three parts, end
        (LARGE, ERROR, 4),
    ],
)
def test_a_write_whose_answer_is_lost_is_ours_all_the_same(
    on_s3: OnS3, size: int, fault: str, at: int
) -> None:
    store = on_s3(**PARTS, config_kwargs={"read_timeout": 2})
    url = f"{store.url}/lost/{fault}/{size}/{at}"
    faults = store.suffer(Faults(of=WRITES, planned=[""] * at + [fault], slow_s=2.5))
    assert storage.create(url, content(size, at))
    assert faults.happened[fault] == 1
    assert not storage.create(url, content(size, at))
    assert storage.read(url) == content(size, at)
    assert store.unfinished() == 0


def test_the_same_bytes_of_another_writer_are_not_taken_for_ours(on_s3: OnS3) -> None:
    store = on_s3()
    store.client.put_object(Bucket="corpus", Key="theirs", Body=b"the same")
    store.suffer(Faults(of=("PUT",), planned=[ERROR]))
    assert not storage.create(f"{store.url}/theirs", b"the same")


def test_parts_that_a_killed_writer_left_go_with_the_next_one(on_s3: OnS3) -> None:
    store = on_s3(**PARTS)
    for name in ("again", "never"):
        store.client.create_multipart_upload(Bucket="corpus", Key=f"left/{name}")
    assert storage.create(f"{store.url}/left/again", content(LARGE))
    assert store.unfinished() == 1
    decades_s = 40 * 365 * 86_400.0  # to moto all uploads were begun in 2010
    assert storage.clear_uploads(f"{store.url}/left", older_s=decades_s) == 0
    assert storage.clear_uploads(f"{store.url}/left", older_s=60) == 1
    assert store.unfinished() == 0


def test_a_body_that_ends_early_is_asked_for_again(on_s3: OnS3) -> None:
    store = on_s3()
    url = f"{store.url}/cut"
    storage.write(url, content(SMALL))
    faults = store.suffer(Faults(of=("GET",), planned=[CUT, "", CUT, "", CUT, ""]))
    assert storage.read(url) == content(SMALL)
    assert storage.read_range(url, 100, 50) == content(SMALL)[100:150]
    with storage.open_binary(url) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content(SMALL)).digest()
    assert faults.happened[CUT] == 3


def test_reading_takes_one_request(on_s3: OnS3) -> None:
    store = on_s3()
    storage.write(f"{store.url}/one", content(SMALL))
    faults = store.suffer(Faults())
    storage.read(f"{store.url}/one")
    storage.read_range(f"{store.url}/one", 10, 10)
    assert faults.seen == {"GET": 2}


def test_an_object_that_changes_while_it_is_read_is_noticed(on_s3: OnS3) -> None:
    store = on_s3()
    url = f"{store.url}/corpus.csv"
    storage.write(url, content(9 << 20))
    with storage.open_binary(url) as file:
        file.read(10)
        storage.write(url, content(9 << 20, seed=1))
        with pytest.raises(StoreError, match="changed while it was read"):
            file.read()


@pytest.mark.parametrize(
    ("faults", "kind", "said"),
    [
        ([ERROR] * 3, StoreError, r"no answer in 3 tries, the last one: 500 InternalError at 127"),
        ([RESET_BEFORE] * 6, StoreError, r"no answer in 3 tries, .*: the connection was lost at"),
        ([DENIED], NoPermissionError, r"no permission \(AccessDenied\); these credentials must be"),
        ([UNKNOWN_KEY], StoreError, r"the credentials are refused \(InvalidAccessKeyId\); renew"),
        (
            [UNSUPPORTED],
            StoreError,
            r"not supported \(501 NotImplemented at [^ ]+\); wanted a store with cond",
        ),
    ],
)
def test_what_another_try_does_not_mend_is_one_line(
    on_s3: OnS3, faults: list[str], kind: type[Exception], said: str
) -> None:
    store = on_s3(tries=3, longest_pause_s=0.1)
    store.suffer(Faults(planned=faults))
    with pytest.raises(kind, match=rf"^s3://corpus/x: {said}[^\n]*$"):
        storage.create(f"{store.url}/x", b"x")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, r"nobody answers at 127.0.0.1:9 \(AWS_END"),
        ({"AWS_PROFILE": "nosuch"}, r"the object store refuses: The config profile \(nosuch\)"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "found no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET",
        ),
    ],
)
def test_an_environment_that_does_not_lead_to_the_store_is_one_line(
    on_s3: OnS3, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    store = on_s3(tries=2)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=rf"^s3://corpus/x: [^\n]*{said}[^\n]*$"):
        storage.read(f"{store.url}/x")


def test_a_bucket_that_is_missing_is_one_line(on_s3: OnS3) -> None:
    on_s3()
    for look in (storage.read, storage.names, storage.files):
        with pytest.raises(StoreError, match=r"there is no such bucket at 127\.0\.0\.1:"):
            look("s3://nosuch/folder")


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    for look in (storage.read, storage.names, lambda url: storage.create(url, b"")):
        with pytest.raises(InputError, match=r"s3://\.\.\.@bucket: found credentials") as refused:
            look("s3://name:s3cr3t@bucket/key")
        assert "s3cr3t" not in str(refused.value)


def test_a_store_that_is_away_is_no_damage_and_no_failed_clip(on_s3: OnS3) -> None:
    store = on_s3(tries=2)
    row = {"key": "a", "shard": "0.tar", "offset": 0, "size": 1_000, "sha256": "of others"}
    storage.write(f"{store.url}/away/0.tar", content(SMALL))
    for fault in (ERROR, DENIED):
        store.suffer(Faults(planned=[fault] * 2))
        with pytest.raises(StoreError):
            read_sample(f"{store.url}/away", row)
    store.suffer(Faults(planned=[ERROR] * 2))
    with pytest.raises(StoreError), local_file(f"{store.url}/away/0.tar"):
        pass
    store.suffer(Faults(of=("GET",), planned=[DENIED]))
    with pytest.raises(DecodeError, match="unreachable"), local_file(f"{store.url}/away/0.tar"):
        pass


def test_a_lease_has_one_holder_who_is_not_shut_out_by_a_lost_answer(on_s3: OnS3) -> None:
    store = on_s3()
    url = f"{store.url}/lease.json"
    faults = store.suffer(Faults(of=("PUT",), planned=[RESET_AFTER]))
    with Lease(url):
        assert faults.happened[RESET_AFTER] == 1
        with pytest.raises(LeaseHeldError, match="held by process"), Lease(url):
            pass
    assert not storage.exists(url)
