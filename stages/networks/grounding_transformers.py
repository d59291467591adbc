"""Grounding DINO as transformers has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import GroundingDinoForObjectDetection

from stages.networks.stored import saved_model, saved_tokenizer


class TransformersGrounding:
    """`Grounding` by transformers."""

    def __init__(self, model: GroundingDinoForObjectDetection, tokenizer: Any) -> None:
        """The text encoder's attention must be torch's: any other adds its bool mask to scores."""
        used = model.model.text_backbone.config._attn_implementation
        if used != "sdpa":
            raise RuntimeError(f"the text encoder runs {used} attention and would ignore its mask")
        self.model: nn.Module = model
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, setting: str) -> TransformersGrounding:
        """folder: a saved model with its tokenizer. Raises InputError, which names the setting."""
        # Without attn_implementation: "eager" would be silently wrong.
        model = saved_model(GroundingDinoForObjectDetection, folder, setting)
        return cls(model, saved_tokenizer(folder, setting))

    def __call__(self, pixels: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As `Grounding` says."""
        tokens = self.tokenizer(list(captions), padding=True, return_tensors="pt")
        answer = self.model(pixel_values=pixels, **tokens.to(pixels.device))
        return answer.logits, answer.pred_boxes
