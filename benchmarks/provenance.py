"""Where a figure comes from: commit, machine, versions and command, beside the figure itself."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def write(name: str, packages: Sequence[str], figures: Mapping[str, Any]) -> Path:
    """`benchmarks/results/<name>.json`."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    record = {
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": _device(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        **figures,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _device() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0] if models else platform.processor()}, {_gpus()}"


def _gpus() -> str:
    if shutil.which("nvidia-smi") is None:
        return "no GPU"
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False)
    return "; ".join(said.stdout.split("\n")).strip("; ") or "no GPU"
