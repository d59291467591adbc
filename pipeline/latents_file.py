"""The file of a sample's latents, as shards hold it: what writer and reader have to agree on.

It is a safetensors file. FORMAT, in its metadata, says which parts there are:

"2" and before, without the word: `video`, `reference` and `text`, modes alone.
"3": `video` is the mean of the codec's posterior, `video_std` its standard deviation, left out
where it is zero everywhere; `reference` is a mode, `variants` the modes of its augmented ones, left
out where there are none; `text`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

FORMAT = "3"


def in_order(blob: bytes) -> bytes:
    """A safetensors file with the words of its header sorted: its writer shuffles them."""
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.dumps(json.loads(blob[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    padded = header.encode("ascii")
    padded += b" " * (-len(padded) % 8)  # the numbers stay aligned
    return struct.pack("<Q", len(padded)) + padded + blob[8 + size :]


@dataclass(frozen=True, slots=True)
class Part:
    """One array of the file. dtype: as safetensors writes it, "F16"; content: its bytes."""

    dtype: str
    shape: tuple[int, ...]
    content: memoryview


def parse(blob: bytes | memoryview) -> tuple[Mapping[str, str], dict[str, Part]]:
    """The words of the header, and the parts where they lie in the file.

    The package's own reader copies every part first. Raises struct.error, ValueError, KeyError or
    TypeError when it is damaged.
    """
    whole = memoryview(blob)
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.loads(bytes(whole[8 : 8 + size]))
    about = header.pop("__metadata__", {})
    parts = {}
    for name, entry in header.items():
        start, end = (8 + size + at for at in entry["data_offsets"])
        parts[name] = Part(entry["dtype"], tuple(entry["shape"]), whole[start:end])
    return about, parts
