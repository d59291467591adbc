"""Runs a job on a Ray cluster: `python -m jobs.submit --config run.toml -- dataset`.

The code and the run file travel with it, its output is followed here, and its exit code is this
command's. Ctrl-C leaves it running. Submitted again, it goes on from where the last one stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.command import OVERRIDES, finish, parser
from jobs.settings import Run
from pipeline import storage
from pipeline.config import dump, load, read_tables
from pipeline.errors import InputError
from pipeline.lifeline import ROOT
from pipeline.units import DRAIN_S

ROOMS = ("pipeline", "stages", "model", "training", "jobs")
"""What travels: the code alone, so that the same code is the same package and is sent once."""

_OF_THE_MODEL = ("train", "plan_train", "generate", "evaluate")
"""Jobs whose run files are not those of curation."""

_RUN_FILE = "run.toml"
_PLACES = ("out", "facts", "corpus.manifest", "corpus.videos", "corpus.parts")
_AGAIN_S = 2.0
"""Before a connection that broke is made anew."""


def main() -> int:
    """The job's exit code: 130 when it was left running, 143 when somebody stopped it there."""
    given, rest = _arguments(sys.argv[1:])
    run = _read(given)
    _check_places(run)
    address = _address(given.address)
    with TemporaryDirectory(prefix="cvx-submit-") as folder:
        _pack(Path(folder), run)
        command = [*("exec", "python", "-m", f"jobs.{given.job}"), "--config", _RUN_FILE, *rest]
        return _submit(address, Path(folder), shlex.join(command))


def exit_code(status: str, code: int | None) -> int:
    """What a job that ended in this state says to a shell.

    code: of its process, negative where a signal killed it; None when it did not end by itself.
    """
    if status == "STOPPED":
        return 143
    if status == "SUCCEEDED":
        return 0
    if code is None:
        return 1
    return 128 - code if code < 0 else code


def _arguments(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is ours, and what the job gets as it stands. A `--` may stand before the job."""
    arguments = parser(__doc__)
    arguments.add_argument("job", help="dataset, score, segment, latents, train, ...")
    arguments.add_argument(
        "--address", help="of the cluster, http://head:8265 (default: RAY_ADDRESS)"
    )
    given, rest = arguments.parse_known_args([word for word in words if word != "--"])
    if not (ROOT / "jobs" / f"{given.job}.py").is_file() or given.job == "submit":
        raise InputError(f"found the job {given.job}, wanted one of jobs/*.py: dataset, score, ...")
    return given, rest


def _read(given: argparse.Namespace) -> Any:
    """The run file, of whichever kind, with what the command line says on top."""
    tables = {} if given.config is None else read_tables(given.config)
    kind = Run
    if given.job in _OF_THE_MODEL:  # the kinds of their run files bring torch along
        from jobs.weights import kind_of

        kind = kind_of(tables)
    said = {key: getattr(given, flag) for flag, (key, _) in OVERRIDES.items()}
    return load(given.config, kind, said)


def _check_places(run: Any) -> None:
    """InputError when the run names a place that only this machine, or this folder, knows."""
    for key, value in _settings(asdict(run)):
        path = storage.local(value)
        if not value or path is None or path.is_absolute():
            continue
        if key in _PLACES or ("/" in value and path.exists()):
            raise InputError(
                f"{key}: found {value}, which is a place beside this command; wanted an absolute "
                "path, or a URL, that every machine of the cluster sees"
            )


def _settings(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a run file, by its dotted key."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{above}{name}.")
        elif isinstance(value, str):
            yield f"{above}{name}", value


def _address(given: str | None) -> str:
    """Where the cluster's dashboard listens."""
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if not address:
        raise InputError(
            "found no cluster, wanted --address http://HEAD:8265 or RAY_ADDRESS; without --, "
            "python -m jobs.dataset runs on this machine"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # or Ray would let RAY_ADDRESS win
    return address


def _pack(folder: Path, run: Any) -> None:
    """The code and the run file, as they will stand in the job's folder."""
    for room in ROOMS:
        shutil.copytree(
            ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    (folder / _RUN_FILE).write_text(dump(run))


def _submit(address: str, folder: Path, command: str) -> int:
    from ray.exceptions import AuthenticationError, RayError
    from ray.job_submission import JobSubmissionClient

    # A job that is stopped gets SIGTERM, and by Ray's default SIGKILL after 3 s.
    waits = str(round(DRAIN_S) + 20)
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "RAY_JOB_STOP_WAIT_TIME_S": waits}
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=command,
            runtime_env={"working_dir": str(folder), "env_vars": environment},
        )
    except AuthenticationError as error:
        raise InputError(
            f"{address}: {str(error).splitlines()[0]}; wanted RAY_AUTH_MODE=token and the "
            "cluster's token in RAY_AUTH_TOKEN, or in the file that RAY_AUTH_TOKEN_PATH names"
        ) from error
    except (OSError, RuntimeError, ValueError, RayError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"{address}: found no Ray cluster that takes jobs, wanted http://HEAD:8265: {why}"
        ) from error
    print(f"{job} on {address}: {command}", flush=True)
    try:
        asyncio.run(_follow(client, job))
        return _ended(client, job)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{job}: the connection to {address} broke, how it ended is not known: {error}; "
            f"ray job status --address {address} {job} says so"
        ) from error
    except KeyboardInterrupt:
        print(
            f"\n{job} runs on; ray job logs --address {address} --follow {job} shows it, "
            f"ray job stop --address {address} {job} stops it, to be submitted again"
        )
        return 130


async def _follow(client: Any, job: str) -> None:
    """Prints what the job says until it has ended, also over a connection that breaks."""
    import aiohttp

    printed = 0
    while True:
        seen = 0
        try:
            async for text in client.tail_job_logs(job):
                new = text[max(0, printed - seen) :]  # a new connection begins at the beginning
                seen += len(text)
                printed = max(printed, seen)
                print(new, end="", flush=True)
            if client.get_job_status(job).is_terminal():
                return
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            print(f"the connection to the cluster broke: {error}", file=sys.stderr)
        await asyncio.sleep(_AGAIN_S)


def _ended(client: Any, job: str) -> int:
    """How the job ended; the state may come a moment after the last line."""
    info = client.get_job_info(job)
    while not info.status.is_terminal():
        time.sleep(_AGAIN_S)
        info = client.get_job_info(job)
    code = exit_code(str(info.status), info.driver_exit_code)
    if code:
        why = "" if info.driver_exit_code is not None else f": {info.message or ''}".rstrip(": ")
        print(f"{job}: {str(info.status).lower()}, exit code {code}{why}", file=sys.stderr)
    return code


if __name__ == "__main__":
    finish(main)
