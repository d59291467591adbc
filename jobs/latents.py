"""Encodes the samples of the kept clips for training, and builds the shards of these latents."""

from __future__ import annotations

import shutil

from safetensors import SafetensorError

from jobs.command import finish
from jobs.house import House
from jobs.steps import take
from pipeline import storage
from pipeline.errors import InputError
from stages.encoders import TINY


def main() -> int:
    """Does what is missing; started again, it goes on where it stopped."""
    return take(__doc__, {"latents": ("latents",)}, latents=True, prepare=_make_text)


def _make_text(house: House) -> None:
    """The tiny text encoder of a corpus, once, from its captions."""
    if house.run.latents.text != TINY or storage.exists(house.text_place):
        return
    folder = storage.local(house.text_place)
    if folder is None:
        raise InputError(
            f'latents.text: found "{TINY}" while the facts lie at {house.text_place}, wanted them '
            "in a local folder; name another facts, or a folder with a T5 encoder"
        )
    from model.text import build_tiny  # torch, which a run with another encoder loads in workers

    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        build_tiny(str(unfinished), house.curation.manifest.rows["caption"].to_pylist())
        unfinished.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise InputError(
            f"{folder}: cannot be written: {error}; make room or name another facts"
        ) from error


if __name__ == "__main__":
    finish(main)
