"""A whole CogVideoX pipeline of tiny components, as diffusers saves one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from transformers import T5EncoderModel, T5Tokenizer

from model.adapter_file import save_adapter
from model.config import TINY, AdapterConfig
from model.text import build_tiny
from model.transformer import CustomVideoX
from model.weights import identify_base, init_tiny_base, load_base, save_base

PROMPT = "A red ball rolls over a green field."
WIDTH, HEIGHT, TOKENS = 48, 32, 16
LIKE_5B = replace(
    TINY,
    num_layers=2,
    num_attention_heads=2,
    max_text_seq_length=TOKENS,
    sample_width=WIDTH // 8,
    sample_height=HEIGHT // 8,
)
LIKE_2B = replace(LIKE_5B, use_rotary_positional_embeddings=False)


def save_pipeline(folder: Path, config: Any = LIKE_5B, snr_shift: float = 1.0) -> Path:
    """transformer, vae, text_encoder, tokenizer and scheduler below the folder."""
    transformer = init_tiny_base(0, config)
    made = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1, generator=made)
    save_base(transformer, folder)
    build_tiny(str(folder), [PROMPT, "blurred and grey"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        vae = cast(Any, AutoencoderKLCogVideoX)(
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=2,
            layers_per_block=1,
            latent_channels=16,
            scaling_factor=0.7,
        )
    vae.save_pretrained(folder / "vae")
    scheduler(snr_shift).save_pretrained(folder / "scheduler")
    return folder


def scheduler(snr_shift: float = 1.0) -> CogVideoXDDIMScheduler:
    """As the hub's CogVideoX-5b configures it; the 2B has a shift of 3.0."""
    return CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=snr_shift,
        clip_sample=False,
    )


def stock_pipeline(folder: Path) -> Any:
    """All of diffusers, in fp32."""
    pipeline = cast(Any, CogVideoXPipeline)(
        T5Tokenizer.from_pretrained(folder, subfolder="tokenizer"),
        T5EncoderModel.from_pretrained(folder, subfolder="text_encoder"),
        AutoencoderKLCogVideoX.from_pretrained(folder, subfolder="vae"),
        load_base(folder),
        CogVideoXDDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_trained(base: Path, file: Path, **made_with: str) -> Path:
    """An adapter that has learnt something, so to speak."""
    model = CustomVideoX(load_base(base), AdapterConfig(rank=4, alpha=4))
    made = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.adapter_parameters().values():
            weight += 0.2 * torch.randn(weight.shape, generator=made)
    save_adapter(model, file, identify_base(base), made_with)
    return file
