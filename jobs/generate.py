"""Videos of subjects: held-out samples of a run, and the wishes in its run file.

Each video has a folder of its own below `samples` of the run folder; one that is whole stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from jobs.attention_report import files, told
from jobs.command import finish
from jobs.curation import recorded
from jobs.generate_settings import GenerateRun
from jobs.generator import WITH, WITHOUT, Draft, Generator, Wish
from jobs.order import recorded_text
from jobs.trained import of_training, open_adapter, open_training
from jobs.wishes import wishes_of
from model.errors import ModelError
from model.sampling import Step
from pipeline import generated, storage
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.stop import Stop
from pipeline.video import VideoSettings
from stages.sample import SampleSettings


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
    if not run.out:
        raise InputError("found no folder for the videos, wanted --out, or out in the run file")
    if run.adapter:
        wishes, sample = wishes_of(run, None, SampleSettings()), SampleSettings()
        pipe, weights = open_adapter(run)
    else:
        curated = recorded(run.out)
        training, trained = of_training(run)
        wishes, sample = wishes_of(run, training, curated.sample), curated.sample
        pipe, weights = open_training(run, trained, curated.latents, recorded_text(curated))
    video = replace(sample.video, width=pipe.size[0], height=pipe.size[1])
    generator = Generator(pipe, weights, run, video.fps, video.crf)
    drafts = list({d.record.name: d for d in _drafts(generator, wishes, run)}.values())
    url = storage.join(run.out, run.name)
    todo = [draft for draft in drafts if not generated.exists(url, draft.record.name)]
    with _Steps(
        run.name, len(todo) * run.sampling.steps, storage.join(url, "status.json")
    ) as shown:
        generator.keep_prompts(todo)
        for draft in todo:
            if not _make(generator, draft, url, video, run.diagnostics, shown, stop):
                print(f"{url}: stopped; the same command goes on from here")
                return stop.exit_code
    generated.write_index(url, [draft.record.name for draft in drafts])
    print(f"{url}: {len(drafts)} videos, {len(todo)} of them new")
    return 0


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
    for wish in wishes:
        with_reference = wish.picture is not None and generator.takes_references
        groups = [WITH] if with_reference else []
        if run.without or not groups:
            groups.append(WITHOUT)
        for seed in wish.seeds:
            for group in groups:
                yield generator.draft(wish, seed, group)


if __name__ == "__main__":
    finish(main)
