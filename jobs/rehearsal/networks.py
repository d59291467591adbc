"""A run with small networks of random weights in place of the published ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torchvision.models.optical_flow import raft_small
from transformers.utils.logging import disable_progress_bar

from jobs.rehearsal import grounding, sam, text_detector
from jobs.rehearsal.clip import save_clip, save_head, save_tokenizer
from jobs.rehearsal.language import save_language
from jobs.settings import Run
from pipeline.stage import Source
from stages.answer import SCHEMA
from stages.grounded import GroundedSegment

_UPDATES, _AREA_PX = 2, 160 * 288
"""Of RAFT: ours, for the third is as the second, and at full size three clips take half a minute.
"""


class SmallSegment(GroundedSegment):
    """The same stage, in a host that also knows the small SAM of the authors' package."""

    def setup(self) -> None:
        sam.register()
        super().setup()


def scored(run: Run, folder: Path) -> Run:
    """RAFT, CLIP, LAION's head and a text detector, written to this folder; placed as before."""
    clip, head = _clip(folder)
    flow = folder / "raft_small.pth"
    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), flow)
    letters = text_detector.save(folder / "text.onnx", gain=4.0, bound=1.0)
    return replace(
        run,
        appearance=replace(
            run.appearance,
            backend="reference",
            model=clip,
            revision="",
            head=head,
            published=False,
        ),
        motion=replace(
            run.motion,
            backend="reference",
            network="raft_small",
            model=str(flow),
            updates=_UPDATES,
            area_px=_AREA_PX,
        ),
        overlay=replace(
            run.overlay,
            backend="reference",
            detector=replace(run.overlay.detector, model=str(letters)),
        ),
    )


def read(run: Run, folder: Path) -> Run:
    """A language model."""
    disable_progress_bar()
    place = save_language(folder, [json.dumps(SCHEMA)])
    reader = replace(run.entities, backend="reference", model=str(place), revision="")
    return replace(run, entities=reader)


def segmented(run: Run, folder: Path, package: Literal["original", "transformers"]) -> Run:
    """Grounding DINO and SAM of this package, CLIP and LAION's head.

    What they look for is read by the grammar: a language model of random weights names nothing.
    """
    clip, head = _clip(folder)
    (folder / "detector").mkdir()
    (folder / "sam").mkdir()
    detector = grounding.save(folder / "detector", package)
    cutter = sam.save(folder / "sam", package)
    return replace(
        run,
        entities=replace(run.entities, backend="cpu"),
        segment=replace(
            run.segment,
            backend="reference",
            # Random weights are sure of nothing, and what is not found is cut out by nobody.
            detector=replace(
                detector,
                box_threshold=0.0,
                text_threshold=0.0,
                placement=run.segment.detector.placement,
            ),
            sam=replace(cutter, placement=run.segment.sam.placement),
        ),
        pair=replace(run.pair, backend="reference", model=clip, revision="", head=head),
    )


def stages_with_small_sam(stages: Sequence[Source], run: Run) -> tuple[Source, ...]:
    """The stages, with `SmallSegment` where the authors' package is to build the small SAM."""
    if run.segment.sam.kind != sam.KIND:
        return tuple(stages)
    small = SmallSegment(run.segment.detector, run.segment.sam)
    return tuple(small if isinstance(stage, GroundedSegment) else stage for stage in stages)


def _clip(folder: Path) -> tuple[str, str]:
    disable_progress_bar()
    clip = save_tokenizer(save_clip(folder / "clip"))
    return str(clip), str(save_head(folder / "head.pth"))
