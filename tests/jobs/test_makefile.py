"""The front door: what the README promises is in the Makefile, and what make runs is right."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*arguments: str, **environment: str) -> str:
    """What make prints; nothing but the environment given here is seen by it."""
    result = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def helped() -> set[str]:
    """The targets that `make help` lists."""
    return set(re.findall(r"^  make ([a-z-]+) ", make(), re.MULTILINE))


def test_help_is_what_make_alone_says(helped):
    assert make() == make("help")
    assert {"demo", "dataset", "test", "check"} <= helped


def test_help_and_the_readme_list_the_same_targets(helped):
    named = re.findall(r"`make ([a-z-]+)[ `]", (ROOT / "README.md").read_text())
    assert {*named, "help"} == helped


def test_every_step_has_its_job(helped):
    run = {target: re.findall(r"-m jobs\.([a-z]+)", make("-n", target)) for target in helped}
    jobs = {job for found in run.values() for job in found}
    assert {job for job in jobs if not (ROOT / "jobs" / f"{job}.py").exists()} == set()


def test_only_the_variables_that_are_set_are_passed():
    assert make("-n", "dataset").rstrip().endswith("-m jobs.dataset")
    said = make("-n", "dataset", "CORPUS=my clips", "OUT=runs/x", "RUNNER=local")
    assert "-m jobs.dataset --corpus 'my clips' --out 'runs/x' --runner 'local'" in said


def test_a_stray_variable_of_the_environment_moves_no_run():
    assert make("-n", "dataset", OUT="/elsewhere").rstrip().endswith("-m jobs.dataset")


def test_openmp_is_quiet_before_python_starts():
    asking = "include Makefile\nasking:\n\t@echo it is $$OMP_WAIT_POLICY\n"
    said = subprocess.run(
        ["make", "-f", "-", "asking"],
        input=asking,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "ACTIVE"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "it is PASSIVE" in said.stdout


@pytest.mark.parametrize("python", ["no-such-python", "/bin/false"])
def test_a_python_that_will_not_do_is_named_in_one_line(python):
    said = make("-B", ".venv/.installed", f"PYTHON={python}").splitlines()
    assert "wanted Python 3.11 or newer" in said[0]
    assert len(said) == 2, "the second line is make's own"


def test_the_lock_names_every_version_and_no_second_opencv():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in packages)
    assert [p.partition("=")[0] for p in packages if "opencv" in p] == ["opencv-python"]


def test_what_we_ask_for_is_in_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["check"]]
    locked = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M)
    wanted = {re.split(r"[\[<>=]", name)[0] for name in asked}
    # Names are the same in any case.
    assert {name.lower() for name in wanted} <= {name.lower() for name in locked}
