"""One measure: overlay."""

from __future__ import annotations

from jobs.command import finish
from jobs.steps import take


def main() -> int:
    """Takes this measure of the clips that wait for it."""
    return take(__doc__, {"overlay": ("overlay",)})


if __name__ == "__main__":
    finish(main)
