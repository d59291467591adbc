"""What of a run is damaged: its facts, samples and latents, and the shards of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jobs.curation import look_at
from jobs.house import House
from jobs.order import encoded_url
from jobs.settings import Run
from pipeline import damage, storage
from pipeline.damage import Damage
from pipeline.errors import InputError, StoreError
from pipeline.ledger import Ledger
from pipeline.progress import Progress
from pipeline.shards import INDEX, dataset_id, read_index
from pipeline.verify import verify

SHARDS, LATENTS = "shards", "latents"
"""The folders of a run that hold them; also the names of what makes them again."""


@dataclass(frozen=True, slots=True)
class Looked:
    """said: what was looked at, a line each."""

    said: tuple[str, ...]
    damages: tuple[Damage, ...]


def look(run: Run) -> Looked:
    """Reads every byte, and changes nothing. Raises InputError when there is no run."""
    said: list[str] = []
    damages: list[Damage] = []
    try:
        house = look_at(run, latents=True)
    except StoreError:
        raise
    except InputError as error:
        # Shards are looked at also where nothing else is: on another machine, to train.
        said.append(f"facts, samples: not looked at, for the corpus cannot be read: {error}")
    else:
        damages += _facts(house, said)
        damages += _builds(house, said)
    for folder in (SHARDS, LATENTS):
        damages += _shards(storage.join(run.out, folder), folder, said)
    return Looked(tuple(said), tuple(damages))


def _facts(house: House, said: list[str]) -> list[Damage]:
    ledger = house.curation.ledger
    stages = [stage for stage in ledger.stages() if ledger.has_parts(stage)]
    total = sum(len(ledger.standing_files(stage)) for stage in stages)
    found: list[Damage] = []
    with _progress("facts", total) as shown:
        for stage in stages:
            found += _counted(damage.of_facts(ledger, stage, shown.update), shown)
    said.append(f"facts: {total} files of {len(stages)} stages, {_count(found)}")
    return found


def _builds(house: House, said: list[str]) -> list[Damage]:
    ledger, encoded = house.curation.ledger, encoded_url(house.run, house.curation.manifest)
    found: list[Damage] = []
    for name, stage, url in (
        ("samples", "sample", house.samples_url),
        ("encoded", "latents", encoded),
    ):
        try:
            found += _of_stage(ledger, name, stage, url, said)
        except StoreError:
            raise
        except InputError as error:
            said.append(f"{name}: not looked at: {error}")
    return found


def _of_stage(ledger: Ledger, name: str, stage: str, url: str, said: list[str]) -> list[Damage]:
    total = damage.num_builds(ledger, stage)
    if not total:
        said.append(f"{name}: there are none yet")
        return []
    with _progress(name, total) as shown:
        found = list(_counted(damage.of_builds(ledger, stage, url, shown.update), shown))
    said.append(f"{name}: {total} files, {_count(found)}")
    return found


def _shards(url: str, folder: str, said: list[str]) -> list[Damage]:
    names = storage.names(url)
    if INDEX not in names and not any(name.endswith(".tar") for name in names):
        said.append(f"{folder}: there are none yet")
        return []
    try:
        index = read_index(url)
    except StoreError:
        raise
    except InputError as error:
        return [Damage(storage.join(url, INDEX), str(error), f"{folder} are packed again", folder)]
    with _progress(folder, index.num_rows) as shown:
        problems = verify(url, shown.update)
        shown.failed += len(problems)
    cost = "its samples are packed again"
    found = [Damage(storage.join(url, p.file), p.found, cost, folder) for p in problems]
    shards = len(set(index["shard"].to_pylist()))
    said.append(
        f"{folder}: dataset {dataset_id(url)[:12]}, {index.num_rows} samples in {shards} shards, "
        f"{_count(found)}"
    )
    return found


def _counted(found: Iterable[Damage], shown: Progress) -> Iterable[Damage]:
    for one in found:
        shown.failed += 1
        yield one


def _count(found: list[Damage]) -> str:
    return f"{len(found) or 'no'} problem{'' if len(found) == 1 else 's'}"


def _progress(name: str, total: int) -> Progress:
    """Of a look, which is no pass: `status.json` is left as it is."""
    return Progress(name, total, None, words={"failed": "damaged"})
