"""Makes again what `verify` finds damaged or missing in a run, and touches nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.command import finish, parser, read_run
from jobs.curation import open_house
from jobs.damage import LATENTS, SHARDS, look
from jobs.house import House
from jobs.order import ALL_PASSES
from jobs.settings import Run
from jobs.steps import said, stopped
from pipeline.damage import Damage
from pipeline.errors import InputError


def main() -> int:
    """0 when all is mended, 1 when something could not be. Killed, it goes on where it was."""
    run = read_run(parser(__doc__).parse_args())
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER")
    damages = look(run).damages
    for damage in damages:
        print(damage, flush=True)
    code = 0
    for latents in (False, True):
        some = [damage for damage in damages if _is_of_latents(damage) == latents]
        if some and code <= 1:  # what cannot be mended keeps nothing else from it
            with open_house(run, latents=latents) as house:
                code = max(code, _mend(house, some))
    print(_ended(run, len(damages), code))
    return code


def _is_of_latents(damage: Damage) -> bool:
    """Whether it is seen by a run that trains only."""
    return damage.stage == LATENTS


def _ended(run: Run, count: int, code: int) -> str:
    if not count:
        return f"{run.out}: nothing is damaged"
    if code:
        return f"{run.out}: not all is mended; python -m jobs.verify --out {run.out} says what"
    return f"{run.out}: all is mended (problems: {count})"


def _mend(house: House, damages: Sequence[Damage]) -> int:
    """All of a run with its latents, or without them."""
    shards_url = house.latents_url if _is_of_latents(damages[0]) else house.shards_url
    packed = [d for d in damages if d.url.startswith(f"{shards_url}/")]
    built = [d for d in damages if d.clips]
    stages = sorted({d.stage for d in damages if d not in packed})
    for damage in damages:
        if damage not in packed and damage not in built:
            house.set_aside(damage.stage, damage.url.rpartition("/")[2])
    house.look_for_weights(stages, soon=stages)
    house.measure_again(_clips(built), "a damaged build is made again", [d.url for d in built])
    for name, of_pass in ALL_PASSES.items():
        if not set(stages).isdisjoint(of_pass):
            report = house.measure(
                name, [s for s in of_pass if s in house.curation.ledger.stages()]
            )
            print(said(house, report, of_pass), flush=True)
            if not report.done:
                return stopped(house)
    if packed and not _pack(house, packed):
        return stopped(house)
    return _failed_again(house, built)


def _clips(built: Sequence[Damage]) -> Mapping[str, Sequence[str]]:
    """Stage -> the clips whose builds are damaged."""
    clips: dict[str, list[str]] = {}
    for damage in built:
        clips.setdefault(damage.stage, []).extend(damage.clips)
    return clips


def _pack(house: House, packed: Sequence[Damage]) -> bool:
    """Shards again, from their samples; False when it was stopped."""
    build = house.build_shards if packed[0].stage == SHARDS else house.build_latents
    return build({damage.url for damage in packed}).dataset_id is not None


def _failed_again(house: House, built: Sequence[Damage]) -> int:
    """1 when a clip could not be built again, with a line for each."""
    code = 0
    for stage, clips in _clips(built).items():
        facts = house.curation.ledger.facts(stage, ())
        codes = dict(zip(facts["clip_id"].to_pylist(), facts["code"].to_pylist(), strict=True))
        for clip in clips:
            if clip not in codes:
                print(f"clip {clip}: {stage}: made as soon as the filters keep it again")
            elif codes[clip] is not None:
                print(f"clip {clip}: {stage} failed: {codes[clip]}")
                code = 1
    return code


if __name__ == "__main__":
    finish(main)
