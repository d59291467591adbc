"""Small networks on disk, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # torch is for the tests that ask for a network
    from stages.networks.grounding import GroundingSettings
    from stages.networks.sam import SamSettings


@pytest.fixture(scope="session")
def small_detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GroundingSettings]:
    """One Grounding DINO with random weights: package -> the settings that load it."""
    from jobs.rehearsal.grounding import save

    return {
        "original": save(tmp_path_factory.mktemp("grounding"), "original"),
        "transformers": save(tmp_path_factory.mktemp("grounding"), "transformers"),
    }


@pytest.fixture(scope="session")
def small_cutters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SamSettings]:
    """One SAM with random weights: package -> the settings that load it."""
    from jobs.rehearsal.sam import register, save

    register()
    return {
        "original": save(tmp_path_factory.mktemp("sam"), "original"),
        "transformers": save(tmp_path_factory.mktemp("sam"), "transformers"),
    }
