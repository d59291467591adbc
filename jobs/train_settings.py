"""The run file of a training: one frozen dataclass per table, owned by what it configures."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from model.compute import ComputeSettings
from model.config import AdapterConfig
from pipeline.bounds import CountOrNone
from pipeline.errors import InputError
from training.course import LoopSettings
from training.held_out import HeldOutSettings
from training.launch import LaunchSettings
from training.step import OptimizerSettings
from training.track import TrackSettings
from training.validation import ValidationSettings

_TAKEN = ("evaluation", "facts", "latents", "report", "samples", "shards")
"""Folders of a run folder that are other steps'."""


@dataclass(frozen=True, slots=True)
class TrainRun:
    """A whole run file.

    out: the run folder; name: of the training's folder in it. latents: where they lie, "" for
    those of the run folder. text: the encoder that made their text, for the prompt of a drop; ""
    for the one that the run folder's own run file names.

    base: a hub name, a folder as diffusers saves it, a training's folder or checkpoint, or "tiny",
    a small one of random weights that fits the latents. base_dtype: of a frozen base; "fp8_storage"
    keeps the weights of its blocks in eight bits and computes in bf16 (docs/decisions/023).
    adapter: its settings, or "none" to train all weights of the base. null_text: what a dropped
    text becomes without an adapter. snr_shift: 1.0 for CogVideoX-5B, 3.0 for the 2B. threads: of
    torch on the CPU, 0 for its own choice; the last bits of a sum depend on them. deterministic: a
    GPU as well gives the same bits twice, for what that costs (not measured on a GPU).
    """

    out: str = ""
    name: str = "train"
    latents: str = ""
    text: str = ""
    base: str = "THUDM/CogVideoX-5b"  # paper, 6.1
    base_dtype: Literal["bf16", "f32", "fp8_storage"] = "bf16"  # as the 5B was trained
    adapter: AdapterConfig | Literal["none"] = field(default_factory=AdapterConfig)
    null_text: Literal["empty", "zeros"] = "empty"  # as diffusers samples
    snr_shift: float = 1.0
    threads: CountOrNone = 0
    deterministic: bool = False
    loop: LoopSettings = field(default_factory=LoopSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    held_out: HeldOutSettings = field(default_factory=HeldOutSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    track: TrackSettings = field(default_factory=TrackSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    launch: LaunchSettings = field(default_factory=LaunchSettings)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name) or self.name in _TAKEN:
            raise InputError(
                f'name: found "{self.name}", wanted that of a folder of its own in the run folder: '
                f"letters, digits and . _ -, and none of {', '.join(_TAKEN)}"
            )
