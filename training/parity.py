"""The parity gate: ten checks before the first step. One that fails stops the run.

What is trained must be the base that everybody knows until the reference comes in, its loss that of
its own scheduler, and what is written must come back as it was. Weights, optimizer and randomness
are left as they were, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from model.errors import ModelError
from pipeline.errors import InputError
from training.parity_case import Case, Finding
from training.parity_network import base_weights, gradients, hidden_reference, stock
from training.parity_positions import positions
from training.parity_run import adapter_file, dataset, loss, noise, optimizer_state

CHECKS: dict[str, Callable[[Case], Finding]] = {
    "stock": stock,
    "base": base_weights,
    "places": positions,
    "noise": noise,
    "loss": loss,
    "hidden": hidden_reference,
    "gradients": gradients,
    "weights": adapter_file,
    "optimizer": optimizer_state,
    "dataset": dataset,
}
"""By name, in their order."""

WITHOUT_FORWARD = ("places", "noise", "optimizer", "dataset")
"""What a run that goes on does again: seconds, whatever the base's size."""


def parity(case: Case, say: Callable[[str], None], resumed: bool = False) -> list[str]:
    """Does the checks and says a line of each. Returns the names of those that failed."""
    names = [name for name in CHECKS if not resumed or name in WITHOUT_FORWARD]
    cuda = case.training.device.type == "cuda"
    failed = []
    with torch.random.fork_rng(devices=[case.training.device] if cuda else []):
        for number, name in enumerate(names, 1):
            fits, told = _checked(case, name)
            verdict = "ok" if fits else "FAILED"
            say(f"parity {number:>2} of {len(names)} {name:<9} {verdict}: {told}")
            if not fits:
                failed.append(name)
    if cuda:  # the steps' own memory is what the metrics are to show
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(case.training.device)
    return failed


def refuse(failed: list[str]) -> None:
    """Raises InputError when a check failed."""
    if failed:
        raise InputError(
            f"the parity gate failed at {', '.join(failed)}: nothing was trained; what differs is "
            "said above: mend the run file, the base or the code, and start again"
        )


def _checked(case: Case, name: str) -> tuple[bool, str]:
    try:
        finding = CHECKS[name](case)
    except (
        ModelError,
        InputError,
        OSError,
        ArithmeticError,
        LookupError,
        RuntimeError,
        ValueError,
    ) as error:
        return False, " ".join(str(error).split()) or type(error).__name__
    sign = "<=" if finding.fits else ">"
    return finding.fits, f"{finding.compared}: {finding.figure:.3g} {sign} {finding.bound:g}"
