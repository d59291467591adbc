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

FORMAT = "3"


def in_order(blob: bytes) -> bytes:
    """A safetensors file with the words of its header sorted: its writer shuffles them."""
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.dumps(json.loads(blob[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    padded = header.encode("ascii")
    padded += b" " * (-len(padded) % 8)  # the numbers stay aligned
    return struct.pack("<Q", len(padded)) + padded + blob[8 + size :]


def metadata(blob: bytes) -> Mapping[str, str]:
    """The words in the header. Raises struct.error or ValueError when it is damaged."""
    (size,) = struct.unpack("<Q", blob[:8])
    return json.loads(blob[8 : 8 + size]).get("__metadata__", {})
