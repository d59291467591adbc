"""From a corpus to training shards: every pass, then the shards."""

from __future__ import annotations

from jobs.command import finish
from jobs.order import PASSES
from jobs.steps import take


def main() -> int:
    """Does what is missing; started again, it goes on where it stopped."""
    return take(__doc__, PASSES, shards=True)


if __name__ == "__main__":
    finish(main)
