"""Published weights that more than one stage uses by default."""

from __future__ import annotations

CLIP_L14 = "openai/clip-vit-large-patch14"
"""What LAION's head was trained on."""

LAION_HEAD = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
    "sac+logos+ava1-l14-linearMSE.pth"
)
