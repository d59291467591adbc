"""Segment Anything as transformers has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import SamModel

from stages.networks.stored import saved_model


class TransformersSam:
    """`Sam` by transformers."""

    def __init__(self, model: SamModel) -> None:
        vision: Any = model.config.vision_config
        self.model: nn.Module = model
        self._sam = model
        self.side_px = int(vision.image_size)

    @classmethod
    def load(cls, folder: Path, setting: str) -> TransformersSam:
        """folder: a saved model. Raises InputError, which names the setting."""
        return cls(saved_model(SamModel, folder, setting))

    def encode(self, pixels: Tensor) -> Tensor:
        """As `Sam.encode`."""
        return self._sam.get_image_embeddings(pixels)

    def decode(self, seen: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As `Sam.decode`."""
        answer = self._sam(
            image_embeddings=seen, input_boxes=boxes[:, None], multimask_output=False
        )
        return answer.pred_masks[:, 0, 0], answer.iou_scores[:, 0, 0]
