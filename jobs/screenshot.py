"""A picture of a run's page, as headless Chromium shows it: `report/page.png`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from jobs.command import finish
from pipeline.errors import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = (1400, 5000)
"""Pixels of the page from its top (ours): funnel, curves, scores, videos and the first clips."""
LOADING_MS = 5000
"""Of the browser's own clock, so that videos have begun."""


def main() -> int:
    """Opens the page from the disk, as a person would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="run folder")
    folder = Path(parser.parse_args().out).resolve() / "report"
    page, picture = folder / "index.html", folder / "page.png"
    if not page.exists():
        raise InputError(f"{page}: found no page; run `python -m jobs.report` first")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise InputError(f"found no browser, wanted one of {', '.join(BROWSERS)}; install Chromium")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",  # a page of our own, and containers run as root
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            f"--virtual-time-budget={LOADING_MS}",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode or not picture.exists():
        raise InputError(f"{browser}: made no picture: {done.stderr.decode()[-300:].strip()}")
    print(picture)
    return 0


if __name__ == "__main__":
    finish(main)
