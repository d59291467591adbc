"""The run file of a generation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from model.config import SamplingConfig
from pipeline.bounds import CountOrNone
from pipeline.errors import InputError

_NAME = re.compile(r"\w[\w .-]*")


@dataclass(frozen=True, slots=True)
class WishSettings:
    """A video to make. prompt: what it shows; reference: a picture, "" for none; entity: the words
    of the prompt that name what the picture shows; name: of its files. seed: in place of the run's
    seeds; negative_prompt: in place of the run's.
    """

    prompt: str
    entity: str = ""
    reference: str = ""
    name: str = ""
    seed: int | None = None
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if self.seed is not None and self.seed < 0:
            raise InputError(f"found seed {self.seed}, wanted 0 or more")
        if not self.prompt.strip():
            raise InputError("found an empty prompt, wanted words")
        if self.reference and not self.entity.strip():
            raise InputError(
                f"found the reference {self.reference} and no entity; wanted the words of the "
                "prompt that name what it shows"
            )
        if self.name and not _NAME.fullmatch(self.name):
            raise InputError(
                f"found the name {self.name!r}, wanted letters, digits, spaces and . _ -, as it "
                "names files"
            )


@dataclass(frozen=True, slots=True)
class GenerateRun:
    """A whole run file.

    out: the run folder, whose own run file says how latents are made; name: of the videos' folder
    in it; training: of the training's, whose last checkpoint is used. adapter: a file, or the
    folder of a checkpoint or of any training, in place of one; out is any folder then. base,
    codec, text: of such an adapter, hub names or folders, "" for the base that it was trained on,
    and the base's own.

    held_out: how many held-out samples of the training give caption and reference; prompts: a CSV,
    JSONL or TOML file of others; wishes: others that stand here. negative_prompt: in place of the
    empty one, to stay away from. without: each also from the prompt alone. tab, erae: whether they
    act. diagnostics: files beside each video that show what its attention did.

    base_dtype: what the base computes in; "fp8_storage" keeps its weights in eight bits and
    computes in bf16. offload: "model" has text encoder, transformer and codec on the GPU one after
    the other, "layers" of the transformer one layer at a time; without a GPU nothing changes.
    threads: of torch on the CPU, 0 for its own choice.
    """

    out: str = ""
    name: str = "samples"
    training: str = "train"
    adapter: str = ""
    base: str = ""
    codec: str = ""
    text: str = ""
    held_out: int = 4  # ours: a row of the report
    prompts: str = ""
    wishes: tuple[WishSettings, ...] = ()
    negative_prompt: str = ""
    seeds: tuple[int, ...] = (0,)
    without: bool = True  # ours: shows what the reference adds
    num_frames: int = 25  # the paper, section 6.1
    tab: bool = True
    erae: bool = True
    diagnostics: bool = True  # ours: sampling measures them anyway, and they are small
    base_dtype: Literal["bf16", "f32", "fp8_storage"] = "bf16"  # as the 5B was trained
    offload: Literal["none", "model", "layers"] = "none"
    threads: CountOrNone = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.num_frames % 4 != 1:
            raise InputError(
                f"num_frames: found {self.num_frames}, wanted 1 more than a multiple of 4"
            )
        if not self.adapter and (self.base or self.codec or self.text):
            raise InputError(
                "base, codec, text: found one of them and no adapter; a training knows its own: "
                "leave them out, or name an adapter"
            )
        if self.held_out < 0:
            raise InputError(f"held_out: found {self.held_out}, wanted 0 or more")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(
                f"seeds: found {list(self.seeds)}, wanted one or more, all different, from 0 on"
            )
