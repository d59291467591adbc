"""One pass: captions by a vision-language model, for the clips that have none."""

from __future__ import annotations

from jobs.command import finish
from jobs.house import House
from jobs.order import PASSES
from jobs.steps import take
from pipeline.errors import InputError


def main() -> int:
    """Runs this pass over the clips that wait for it."""
    return take(__doc__, {"caption": PASSES["caption"]}, prepare=_is_on)


def _is_on(house: House) -> None:
    if house.run.caption.backend == "off":
        raise InputError(
            'caption.backend: found "off", wanted "server" under [caption] in the run file, with '
            "base_url under [caption.server]"
        )


if __name__ == "__main__":
    finish(main)
