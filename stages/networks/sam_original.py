"""Segment Anything by its authors' package (segment-anything 1.0)."""

from __future__ import annotations

from pathlib import Path

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam as PackageSam
from torch import Tensor, nn

from pipeline.errors import InputError
from stages.networks.stored import fill, saved_state


class OriginalSam:
    """`Sam` by the authors' package."""

    def __init__(self, model: PackageSam) -> None:
        self.model: nn.Module = model
        self._sam = model
        self.side_px = model.image_encoder.img_size

    @classmethod
    def load(cls, file: Path, kind: str, table: str) -> OriginalSam:
        """file: the weights; kind: of the package's registry. Raises InputError."""
        if kind not in sam_model_registry:
            known = ", ".join(sam_model_registry)
            raise InputError(f"{table}.kind: found {kind}, wanted one of {known}")
        model = sam_model_registry[kind]()
        fill(model, saved_state(file, f"{table}.model"), f"{table}.model")
        return cls(model)

    def encode(self, pixels: Tensor) -> Tensor:
        """As `Sam.encode`."""
        return self._sam.image_encoder(pixels)

    def decode(self, seen: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As `Sam.decode`; the package takes the boxes of one picture at a time."""
        model = self._sam
        answers = []
        for embedding, box in zip(seen, boxes, strict=True):
            sparse, dense = model.prompt_encoder(points=None, boxes=box[None], masks=None)
            answers.append(
                model.mask_decoder(
                    image_embeddings=embedding[None],
                    image_pe=model.prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=False,
                )
            )
        masks, ious = zip(*answers, strict=True)
        return torch.cat(masks)[:, 0], torch.cat(ious)[:, 0]
