"""What every command shares: its arguments, and how it ends.

Exit codes: 0 done; 1 a stage raised, or too much crashed or failed; 2 bad input or run file; 130
and 143 stopped by SIGINT or SIGTERM, to be started again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jobs.settings import Run
from pipeline import storage
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.host import StageError
from pipeline.units import SickClusterError

OVERRIDES = {
    "corpus": ("corpus.manifest", "CSV, Parquet, JSONL, or a folder of videos with captions"),
    "videos": ("corpus.videos", "folder or URL of the videos (default: beside the manifest)"),
    "out": ("out", "run folder"),
    "runner": ("engine.runner", "ray or local"),
}


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of every job that works on a run; doc: the job's docstring."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="RUN.toml", help="the run file")
    for flag, (_, text) in OVERRIDES.items():
        parser.add_argument(f"--{flag}", help=text)
    return parser


def read_run(arguments: argparse.Namespace) -> Run:
    """The run file with what the command line says on top. Raises InputError.

    Without a run file: the one in the run folder, where there is one.
    """
    overrides: Mapping[str, Any] = {
        key: getattr(arguments, flag)
        for flag, (key, _) in OVERRIDES.items()
        if getattr(arguments, flag) is not None
    }
    config = arguments.config
    if config is None and arguments.out:
        own = storage.join(arguments.out, "config.toml")
        config = own if storage.exists(own) else None
    return load(config, Run, overrides)


def finish(main: Callable[[], int]) -> None:
    """Runs a job's main and exits with its code; the user's mistakes are one line, code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        code = main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except StageError as error:
        print(f"error: a stage raised; what was measured is kept\n{error}", file=sys.stderr)
        code = 1
    except SickClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
