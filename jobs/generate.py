"""Videos of subjects: held-out samples of a run, and the wishes in its run file.

Each video has a folder of its own below `samples` of the run folder; one that is whole stays.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.attention_report import files, told
from jobs.command import finish
from jobs.curation import recorded
from jobs.generate_settings import GenerateRun
from jobs.generator import WITH, WITHOUT, Draft, Generator, Trained, Wish
from jobs.order import recorded_text
from jobs.settings import Run
from jobs.train_settings import TrainRun
from model.errors import ModelError
from model.sampling import Step
from pipeline import generated, storage
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.reference import read_reference
from pipeline.shard_reader import ShardReader
from pipeline.stop import Stop
from pipeline.video import VideoSettings
from training.checkpoint import find, is_checkpoint, read_state
from training.dataset import ENCODERS, LatentDataset
from training.held_out import split
from training.weights import ADAPTER

_log = logging.getLogger(__name__)

_FEW_WORDS = 20  # design, "Sampling": CogVideoX was trained on long captions


def main() -> int:
    """Makes what is missing; started again, it goes on with the next video."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="RUN.toml", help="the run file of the generation")
    parser.add_argument("--out", help="run folder")
    given = parser.parse_args()
    run = load(given.config, GenerateRun, {"out": given.out})
    stop = Stop()
    stop.listen()
    try:
        return _generate(run, stop)
    except ModelError as error:
        raise InputError(str(error)) from error


def _generate(run: GenerateRun, stop: Stop) -> int:
    if run.threads:
        torch.set_num_threads(run.threads)
    curated = recorded(run.out)
    training, trained = _trained(run)
    wishes = [*_held_out(run, training), *_wishes(run, curated)]
    if not wishes:
        raise InputError("found no video to make; wanted held_out above 0, or [[wishes]]")
    _warn_of_short(wishes)
    video = replace(
        curated.sample.video, width=curated.latents.width, height=curated.latents.height
    )
    generator = Generator(trained, run, curated.latents, recorded_text(curated), video.fps)
    drafts = list(_drafts(generator, wishes, run))
    url = storage.join(run.out, run.name)
    todo = [draft for draft in drafts if not generated.exists(url, draft.record.name)]
    with _Steps(
        run.name, len(todo) * run.sampling.steps, storage.join(url, "status.json")
    ) as shown:
        for draft in todo:
            if not _make(generator, draft, url, video, run.diagnostics, shown, stop):
                print(f"{url}: stopped; the same command goes on from here")
                return stop.exit_code
    generated.write_index(url, [draft.record.name for draft in drafts])
    print(f"{url}: {len(drafts)} videos, {len(todo)} of them new")
    return 0


def _warn_of_short(wishes: Sequence[Wish]) -> None:
    for prompt in dict.fromkeys(wish.prompt for wish in wishes):
        words = len(prompt.split())
        if words < _FEW_WORDS:
            _log.warning(
                "the prompt '%s' has %d words; the base was trained on long captions, so %d or "
                "more make better videos",
                textwrap.shorten(prompt, 80, placeholder=" ..."),
                words,
                _FEW_WORDS,
            )


def _make(
    generator: Generator,
    draft: Draft,
    url: str,
    video: VideoSettings,
    diagnostics: bool,
    shown: _Steps,
    stop: Stop,
) -> bool:
    """One video; False when it was stopped before its end."""

    def heard(step: Step) -> None:
        shown.update()
        if stop():
            raise _StoppedError

    try:
        images, seen = generator.make(draft, heard)
    except _StoppedError:
        return False
    warnings = [step.saw.warning for step in seen if step.saw and step.saw.warning]
    if warnings:
        shown.note(f"{draft.record.name}: {warnings[0]} (in {len(warnings)} of {len(seen)} steps)")
    record = replace(draft.record, seen=[told(step) for step in seen])
    beside = files(seen, generator.grid) if diagnostics else {}
    generated.save(url, record, images, draft.wish.picture, video, beside)
    shown.videos += 1
    return True


class _StoppedError(Exception):
    """A signal came in the middle of a video."""


class _Steps(Progress):
    """Counts the steps of all videos."""

    videos = 0

    def _counts(self) -> str:
        return f"{self.videos} videos done"


def _drafts(generator: Generator, wishes: Sequence[Wish], run: GenerateRun) -> Iterator[Draft]:
    groups = [WITH] if generator.takes_references else []
    if run.without or not groups:
        groups.append(WITHOUT)
    for wish in wishes:
        for seed in run.seeds:
            for group in groups:
                yield generator.draft(wish, seed, group)


def _wishes(run: GenerateRun, curated: Run) -> Iterator[Wish]:
    """What the run file asks for."""
    size = curated.sample.video.width, curated.sample.video.height
    for number, wish in enumerate(run.wishes, 1):
        try:
            content = storage.read(wish.reference)
        except OSError as error:
            raise InputError(f"{wish.reference}: the reference cannot be read: {error}") from error
        picture = read_reference(wish.reference, content, size, curated.sample.reference)
        yield Wish(wish.name or f"wish{number}", wish.prompt, wish.entity, picture)


def _held_out(run: GenerateRun, training: TrainRun) -> Iterator[Wish]:
    """Samples that were never trained on, of as many subjects as possible."""
    if run.held_out == 0:
        return
    latents = LatentDataset(training.latents or storage.join(run.out, "latents"))
    _, held = split(training.loop.seed, latents.source_ids, training.held_out.share)
    shards = storage.join(run.out, "shards")
    samples = ShardReader(shards)
    numbers = {key: number for number, key in enumerate(samples.index["key"].to_pylist())}
    of_source = {latents.source_ids[number]: latents.keys[number] for number in reversed(held)}
    for key in list(of_source.values())[: run.held_out]:
        if key not in numbers:
            raise InputError(
                f"{shards}: found no sample {key}, which the latents name; build the "
                "latents of these shards"
            )
        _, members = samples[numbers[key]]
        about = json.loads(members["json"])
        picture = Image.open(io.BytesIO(members["reference.png"])).convert("RGB")
        entity = about["facts"]["entities"]["phrase"]
        yield Wish(key, about["caption"], entity, np.asarray(picture))


def _trained(run: GenerateRun) -> tuple[TrainRun, Trained]:
    """The training of the run folder, and its last checkpoint."""
    place = storage.join(run.out, run.training)
    own, checkpoint = Path(place) / "config.toml", Path(find(place))
    if not own.exists() or not is_checkpoint(checkpoint):
        raise InputError(f"{place}: found no checkpoint; run `python -m jobs.train` first")
    training = load(str(own), TrainRun)
    known = read_state(checkpoint).settings
    trains_base = training.adapter == "none"
    return training, Trained(
        str(checkpoint) if trains_base else find(training.base),
        None if trains_base else checkpoint / ADAPTER,
        {what: known[f"latents.{what}"] for what in ENCODERS},
        training.null_text,
        training.snr_shift,
    )


if __name__ == "__main__":
    finish(main)
