"""One pass: entities."""

from __future__ import annotations

from jobs.command import finish
from jobs.order import PASSES
from jobs.steps import take


def main() -> int:
    """Runs this pass over the clips that wait for it."""
    return take(__doc__, {"entities": PASSES["entities"]})


if __name__ == "__main__":
    finish(main)
