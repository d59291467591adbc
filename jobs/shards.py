"""Builds the shards and their index from the samples of the kept clips."""

from __future__ import annotations

from jobs.command import finish
from jobs.steps import take


def main() -> int:
    """Builds what is missing."""
    return take(__doc__, {}, shards=True)


if __name__ == "__main__":
    finish(main)
