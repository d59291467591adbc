"""CLIP's image side: pictures to embeddings of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import CLIPImageProcessor, CLIPModel

from pipeline.weights import Weights, find
from stages.networks.placement import Placement
from stages.networks.stored import reading, saved_model


class ClipImages:
    """transformers' CLIP, loaded at once. Raises InputError when its weights are not there.

    Pictures are cut as the model's own preprocessor_config.json says, on the device: OpenAI's is
    short side 224, bicubic with antialiasing, centre crop. Against the same in PIL no value of a
    picture moves by more than a grey level; see tests/stages/networks/test_clip.py.
    """

    def __init__(self, weights: Weights, placement: Placement) -> None:
        folder = find(weights)
        self._placement = placement
        with reading(weights.setting, folder, "a CLIP of transformers"):
            self._processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = saved_model(CLIPModel, folder, weights.setting, placement.torch_dtype)
        del model.text_model
        self._model = model.to(placement.torch_device).eval()
        self.width = int(model.config.projection_dim)
        """How many numbers an embedding has."""

    @torch.inference_mode()
    def embed(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(N, H, W, 3) uint8 RGB each, of any sizes -> (N, width) float32 each, of length 1."""
        device = self._placement.torch_device
        cut = [
            self._processor(images=self._placement.load(clip), device=device, return_tensors="pt")
            for clip in clips
        ]
        if not cut:
            return []
        pixels = torch.cat([one["pixel_values"] for one in cut]).to(self._placement.torch_dtype)
        features = [
            self._model.get_image_features(pixel_values=batch).pooler_output
            for batch in pixels.split(self._placement.batch)
        ]
        embeddings = normalize(torch.cat(features).float(), dim=-1).cpu().numpy()
        return np.split(embeddings, np.cumsum([len(clip) for clip in clips])[:-1])
