"""A sample's tar, as curation leaves it: what latents are made of."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from pipeline import video
from pipeline.sample_tar import pack
from pipeline.video import VideoSettings

BUILT = {"interval": 5, "reference_version": 9}


def packed_sample(key: str, caption: str, images: np.ndarray, reference: np.ndarray) -> bytes:
    """images: (N, H, W, 3), reference: (H, W, 3), both uint8."""
    file = io.BytesIO()
    Image.fromarray(reference).save(file, "PNG")
    height, width = images.shape[1:3]
    members = {
        "json": json.dumps({"caption": caption, "provenance": {"settings": BUILT}}).encode(),
        "mask.png": b"",
        "mp4": video.encode(images, VideoSettings(width, height)),
        "reference.png": file.getvalue(),
    }
    return pack(key, members)
