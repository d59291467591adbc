"""Folders of latents made by hand, as `python -m jobs.latents` leaves them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import torch
from safetensors.torch import save
from torch import Tensor

from pipeline import shards
from pipeline.latents_file import FORMAT
from pipeline.sample_tar import pack

TOKENS, DIM = 12, 16
PICTURES = {"width": "48", "height": "32", "resize": "none/1"}
PICTURES |= {"interval": "3", "reference_version": "1"}


def key(number: int) -> str:
    """16 base32 characters."""
    return base64.b32encode(hashlib.sha256(str(number).encode()).digest()[:10]).decode().lower()


def blob(
    number: int,
    source: str,
    made_with: Mapping[str, str],
    frames: int = 2,
    more: Mapping[str, Tensor] | None = None,
) -> bytes:
    """One sample: a still picture of its source, f16. more: parts beside it, f16 too."""
    generator = torch.Generator().manual_seed(
        int(hashlib.sha256(source.encode()).hexdigest()[:8], 16)
    )
    picture = torch.randn(16, 1, 4, 6, generator=generator)
    tensors = {
        "video": picture.repeat(1, frames, 1, 1).half(),
        "reference": picture.half(),
        "text": torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(number)).half(),
        **{name: part.half() for name, part in (more or {}).items()},
    }
    about = {
        "format": FORMAT,
        "key": key(number),
        "caption": "A ball rolls.",
        "entity": "ball",
        "entity_tokens": json.dumps([1]),
        "source_id": source,
        **PICTURES,
        **made_with,
    }
    return save(tensors, about)


def write_latents(
    folder: Path, blobs: Mapping[int, tuple[str, bytes]], member: str = "safetensors", most: int = 8
) -> str:
    """Puts number -> (source, blob) in shards below `folder`. Returns their url."""
    rows = []
    (folder / "packed").mkdir(parents=True)
    for number, (source, content) in blobs.items():
        packed = pack(key(number), {member: content})
        name = f"{key(number)}.tar"
        (folder / "packed" / name).write_bytes(packed)
        sha = hashlib.sha256(packed).hexdigest()
        row = {"clip_id": key(number), "source_id": source, "address": sha, "name": name}
        rows.append({**row, "sha256": sha})
    url = str(folder / "latents")
    shards.build(pa.Table.from_pylist(rows), str(folder / "packed"), url, most)
    return url


def small_latents(folder: Path, count: int = 24, codec: str = "dct", text: str = "tiny") -> str:
    """A dataset of `count` samples, two of each source video."""
    made_with = {"codec": codec, "text": text}
    sources = {number: f"source {number // 2}" for number in range(count)}
    return write_latents(
        folder, {n: (source, blob(n, source, made_with)) for n, source in sources.items()}
    )
