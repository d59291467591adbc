"""A VAE of CogVideoX's class, small and with random weights, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX

SCALING = 0.7


def save_vae(folder: Path, seed: int = 0, **changed: Any) -> str:
    """Writes it as a pipeline's folder has it; returns the folder."""
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 2,
        "layers_per_block": 1,
        "latent_channels": 16,
        "scaling_factor": SCALING,
        **changed,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLCogVideoX(**settings)
    vae.save_pretrained(folder / "vae")
    return str(folder)
