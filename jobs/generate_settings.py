"""The run file of a generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.config import SamplingConfig
from pipeline.errors import InputError


@dataclass(frozen=True, slots=True)
class WishSettings:
    """A video to make. reference: a picture; entity: the words of the prompt that name what it
    shows; name: of its files.
    """

    prompt: str
    entity: str
    reference: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class GenerateRun:
    """A whole run file.

    out: the run folder, whose own run file says how latents are made; name: of the videos' folder
    in it; training: of the training's, whose last checkpoint is used. held_out: how many held-out
    samples give caption and reference; wishes: others. without: each also from the prompt alone.
    tab, erae: whether they act. diagnostics: files beside each video that show what its attention
    did. base_dtype: what the base computes in. threads: of torch on the
    CPU, 0 for its own choice.
    """

    out: str = ""
    name: str = "samples"
    training: str = "train"
    held_out: int = 4  # ours: a row of the report
    wishes: tuple[WishSettings, ...] = ()
    seeds: tuple[int, ...] = (0,)
    without: bool = True  # ours: shows what the reference adds
    num_frames: int = 25  # the paper, section 6.1
    tab: bool = True
    erae: bool = True
    diagnostics: bool = True  # ours: sampling measures them anyway, and they are small
    base_dtype: Literal["bf16", "f32"] = "bf16"  # as the 5B was trained
    threads: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.num_frames % 4 != 1:
            raise InputError(
                f"num_frames: found {self.num_frames}, wanted 1 more than a multiple of 4"
            )
