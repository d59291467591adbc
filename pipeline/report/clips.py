"""Which clips of a run to show, and what is to be seen of them.

The one place of the reports that knows how stages name what can be looked at: the length of a clip
(probe), its mask (segment) and its sample.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline import storage
from pipeline.clip import Clip, Failed, caption_of
from pipeline.decoder import Decoder
from pipeline.errors import InputError
from pipeline.frames import FrameRequest, Frames, Indices
from pipeline.manifest import Manifest
from pipeline.mask import rle_decode
from pipeline.report.page import FunnelRow
from pipeline.report.sheet import SheetRow, overlay
from pipeline.sample_tar import unpack
from pipeline.stage import Source
from pipeline.verdicts import MANIFEST_STAGE, reason

FRAMES_A_CLIP = 5
FRAME_PX = 640 * 360
"""Area of a frame (ours): three times what a sheet shows."""
DEADLINE_S, MEMORY_BYTES = 60.0, 4 << 30
"""For the frames of one clip: a picture in a report is not worth more."""

Known = Mapping[str, Mapping[str, Any]]
"""What is known of one clip: stage -> its row of the ledger."""


@dataclass(frozen=True, slots=True)
class Number:
    """A fact to print beside a clip. form: for `format`, e.g. `.1%`, or `` for a word."""

    label: str
    stage: str
    column: str
    form: str = ""


def funnel_rows(verdicts: pa.Table, stages: Sequence[Source]) -> list[FunnelRow]:
    """One row per stage, the manifest first: what it took out and what is left after it."""
    groups = verdicts.group_by(["stage", "verdict"]).aggregate([([], "count_all")]).to_pylist()
    counts = {(group["stage"], group["verdict"]): group["count_all"] for group in groups}
    rows, left = [], len(verdicts)
    for stage in (MANIFEST_STAGE, *(stage.name for stage in stages)):
        out = {word: counts.get((stage, word), 0) for word in ("rejected", "failed", "pending")}
        left -= sum(out.values())
        rows.append(FunnelRow(stage, left, **out))
    return rows


def choose(verdicts: pa.Table, kept: int, others: int) -> list[int]:
    """Row numbers to show: the first kept ones, then the first few of every other reason.

    others: how many of each stage, measure and code.
    """
    columns = [verdicts[name].to_pylist() for name in ("verdict", "stage", "measure", "code")]
    seen: Counter[tuple[str, ...]] = Counter()
    chosen: dict[bool, list[int]] = {True: [], False: []}
    for number, why in enumerate(zip(*columns, strict=True)):
        seen[why] += 1
        if seen[why] <= (kept if why[0] == "kept" else others):
            chosen[why[0] == "kept"].append(number)
    return chosen[True] + chosen[False]


def sheet_rows(
    rows: Sequence[int],
    manifest: Manifest,
    verdicts: pa.Table,
    facts: Mapping[str, pa.Table],
    samples_url: str,
    numbers: Sequence[Number],
) -> Iterator[SheetRow]:
    """The clips of these row numbers, one at a time, in order.

    A kept clip shows its reference, its mask over frame 0 and five frames; another one what there
    is of them. Frames are decoded in a child process, which may die of a broken file.
    """
    clips = manifest.clips(rows)
    known = _known({clip.clip_id for clip in clips}, facts)
    records = verdicts.take(pa.array(rows, pa.int64())).to_pylist()
    decoder = Decoder(DEADLINE_S, MEMORY_BYTES)
    try:
        for clip, record in zip(clips, records, strict=True):
            about = known.get(clip.clip_id, {}) if record["stage"] != MANIFEST_STAGE else {}
            shown = [*_reference(clip, about, samples_url), *_frames(clip, about, decoder)]
            yield SheetRow(
                title=clip.video,
                verdict=_verdict(record, about),
                caption=caption_of(clip, about),
                pictures=[picture for _, picture in shown],
                labels=[label for label, _ in shown],
                numbers=_numbers(about, numbers),
            )
    finally:
        decoder.close()


def _known(clip_ids: set[str], facts: Mapping[str, pa.Table]) -> dict[str, dict[str, Any]]:
    """Of these clips only: a ledger may hold a million."""
    wanted = pa.array(sorted(clip_ids), pa.string())
    known: dict[str, dict[str, Any]] = {}
    for stage, table in facts.items():
        for row in table.filter(pc.field("clip_id").isin(wanted)).to_pylist():
            known.setdefault(row["clip_id"], {})[stage] = row
    return known


def _verdict(record: Mapping[str, Any], about: Known) -> str:
    message = about.get(record["stage"] or "", {}).get("message")
    return f"{reason(record)} ({message})" if message else reason(record)


def _numbers(about: Known, numbers: Sequence[Number]) -> dict[str, str]:
    found = {
        number.label: (about.get(number.stage, {}).get(number.column), number.form)
        for number in numbers
    }
    return {
        label: format(value, form) for label, (value, form) in found.items() if value is not None
    }


def _reference(clip: Clip, about: Known, samples_url: str) -> Iterator[tuple[str, np.ndarray]]:
    name = about.get("sample", {}).get("name")
    if not name:
        return
    try:
        sample = unpack(clip.clip_id, storage.read(storage.join(samples_url, name)))
    except (FileNotFoundError, InputError):
        return  # removed since: the report shows what there is
    yield "reference", np.asarray(Image.open(io.BytesIO(sample["reference.png"])).convert("RGB"))


def _frames(clip: Clip, about: Known, decoder: Decoder) -> Iterator[tuple[str, np.ndarray]]:
    """Five frames of the whole clip, and frame 0 with the mask, where there is one."""
    last = (about.get("probe", {}).get("num_frames") or 0) - 1
    if last < 0:
        return
    picked = sorted({round(i * last / (FRAMES_A_CLIP - 1)) for i in range(FRAMES_A_CLIP)})
    decoded = decoder.decode(clip.path, [FrameRequest(Indices(tuple(picked)), FRAME_PX)])
    if isinstance(decoded, Failed):
        return
    frames = decoded[0]
    if frames.numbers[:1] == (0,):
        yield from _mask(frames, about.get("segment", {}))
    for seconds, image in zip(frames.seconds(), frames.images, strict=True):
        yield f"{seconds:.1f} s", image


def _mask(frames: Frames, segment: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    if not segment.get("mask_rle"):
        return
    mask = rle_decode(segment["mask_rle"], segment["mask_width"], segment["mask_height"])
    height, width = frames.images.shape[1:3]
    small = Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    yield "mask", overlay(frames.images[0], np.asarray(small).astype(bool))
