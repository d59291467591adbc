"""Latents: what comes back, what depends on what, and diffusers' own calls as the oracle."""

import csv
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.codec import DctCodec, VaeCodec
from model.errors import ModelError
from pipeline.decode import read_frames
from pipeline.frames import FrameRequest, Indices

CLIPS = Path(__file__).parents[2].parent / "shared" / "clips"


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 2,
        "layers_per_block": 1,
        "latent_channels": 16,
        "scaling_factor": 0.7,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLCogVideoX(**settings)
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def theirs(pipeline_folder: Path) -> Any:
    return AutoencoderKLCogVideoX.from_pretrained(pipeline_folder, subfolder="vae")


@pytest.fixture(scope="module")
def vae(pipeline_folder: Path) -> VaeCodec:
    return VaeCodec(str(pipeline_folder), torch.float32)


def test_what_the_kept_coefficients_can_say_comes_back():
    codec = DctCodec()
    latents = 0.02 * _noise(2, 16, 7, 3, 5)
    video = codec.decode(latents)
    assert video.shape == (2, 3, 25, 24, 40)
    torch.testing.assert_close(codec.encode(video).mode(), latents, atol=1e-6, rtol=0)


def test_every_colour_comes_back():
    colours = _noise(8, 3, 1, 1, 1).expand(8, 3, 5, 16, 16)
    codec = DctCodec()
    torch.testing.assert_close(codec.decode(codec.encode(colours).mode()), colours)


def test_brightness_is_transformed_as_by_opencv():
    grey = _noise(8, 8)
    latents = DctCodec().encode(grey.expand(1, 3, 1, 8, 8)).mode().flatten()
    wanted = cv2.dct(grey.numpy()) * np.sqrt(3)
    assert latents[0] * 7.95 == pytest.approx(wanted[0, 0], abs=1e-5)
    assert latents[8] * 0.41 == pytest.approx(wanted[1, 2], abs=1e-5)
    assert latents[15] * 0.29 == pytest.approx(wanted[2, 2], abs=1e-5)


def test_each_latent_frame_depends_on_its_own_frames_alone():
    codec, video = DctCodec(), _noise(1, 3, 25, 16, 16)
    before = codec.encode(video).mode()
    for frame in range(25):
        changed = video.clone()
        changed[:, :, frame] = _noise(1, 3, 16, 16, seed=1 + frame)
        differs = (codec.encode(changed).mode() != before).flatten(3).any(3).any(1).flatten()
        assert differs.nonzero().flatten().tolist() == [(frame + 3) // 4]


def test_a_picture_is_a_video_of_one_frame():
    codec, video = DctCodec(), _noise(1, 3, 9, 16, 24)
    picture = codec.encode(video[:, :, :1]).mode()
    torch.testing.assert_close(picture, codec.encode(video).mode()[:, :, :1])
    assert codec.decode(picture).shape == (1, 3, 1, 16, 24)


def test_nothing_is_drawn_where_nothing_is_lost():
    posterior = DctCodec().encode(_noise(1, 3, 5, 8, 8))
    assert torch.equal(posterior.sample(torch.Generator().manual_seed(0)), posterior.mode())


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips, ../shared/clips, are not here")
def test_real_clips_come_back_at_25_db_with_channels_of_unit_size():
    codec, psnr_db, squares = DctCodec(), [], []
    for row in csv.DictReader((CLIPS / "clips.csv").open(encoding="utf-8")):
        request = FrameRequest(Indices(tuple(range(3, 76, 3))), area_px=256 * 384)
        (frames,) = read_frames(str(CLIPS / row["video"]), [request])
        images = [cv2.resize(i, (192, 128), interpolation=cv2.INTER_AREA) for i in frames.images]
        video = torch.from_numpy(np.stack(images)).permute(3, 0, 1, 2)[None] / 127.5 - 1
        latents = codec.encode(video).mode()
        error = (codec.decode(latents) - video).square().mean() / 4
        psnr_db.append(-10 * error.log10().item())
        squares.append(latents.square().mean((0, 3, 4)))
    assert len(psnr_db) >= 10
    assert np.mean(psnr_db) >= 25
    per_channel = torch.stack(squares).mean(0)
    torch.testing.assert_close(per_channel[:, 0], torch.ones(16), atol=0.05, rtol=0)
    torch.testing.assert_close(per_channel[:, 1:].mean(1), torch.ones(16), atol=0.05, rtol=0)


@pytest.mark.parametrize("frames", [1, 25])
def test_the_vae_is_diffusers_with_its_scaling_once(vae: VaeCodec, theirs: Any, frames: int):
    video = _noise(1, 3, frames, 16, 24)
    posterior = vae.encode(video)
    with torch.no_grad():
        wanted = theirs.encode(video).latent_dist
        decoded = theirs.decode(wanted.mode()).sample.clamp(-1, 1)
    assert torch.equal(posterior.mode(), wanted.mode() * 0.7)
    torch.testing.assert_close(
        posterior.sample(torch.Generator().manual_seed(3)),
        wanted.sample(torch.Generator().manual_seed(3)) * 0.7,
    )
    torch.testing.assert_close(vae.decode(posterior.mode()), decoded)


def test_the_vae_never_tiles_and_gives_a_sample_the_same_latents_in_any_batch(
    pipeline_folder: Path, tmp_path: Path
):
    small: Any = AutoencoderKLCogVideoX.from_pretrained(pipeline_folder, subfolder="vae")
    small.register_to_config(sample_height=16, sample_width=16)  # tiles would be of 8 px
    small.save_pretrained(tmp_path)
    codec = VaeCodec(str(tmp_path), torch.float32)
    video = _noise(2, 3, 9, 32, 32)
    both = codec.encode(video).mode()
    with torch.no_grad():
        wanted = small.encode(video[1:]).latent_dist.mode() * 0.7
    assert torch.equal(both[1:], wanted)
    assert torch.equal(codec.decode(both)[1:], codec.decode(both[1:]))


def test_a_vae_in_half_precision_gives_float32_latents_of_another_fingerprint(
    pipeline_folder: Path, vae: VaeCodec
):
    half = VaeCodec(str(pipeline_folder / "vae"), torch.bfloat16)
    latents = half.encode(_noise(1, 3, 5, 16, 16)).mode()
    assert latents.dtype == half.decode(latents).dtype == torch.float32
    same = VaeCodec(str(pipeline_folder / "vae"), torch.float32)
    assert vae.fingerprint() == same.fingerprint()
    assert len({vae.fingerprint(), half.fingerprint(), DctCodec().fingerprint()}) == 3


def test_other_weights_have_another_fingerprint(
    pipeline_folder: Path, tmp_path: Path, vae: VaeCodec
):
    shutil.copytree(pipeline_folder / "vae", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["encoder.conv_out.conv.bias"][0] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    assert VaeCodec(str(tmp_path), torch.float32).fingerprint() != vae.fingerprint()


def test_what_is_no_vae_of_cogvideox_is_named_in_one_line(pipeline_folder: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"found nothing at '.*nowhere'"):
        VaeCodec(str(tmp_path / "nowhere"), torch.float32)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL", "latent_channels": 4}')
    with pytest.raises(ModelError, match="is AutoencoderKL of 4 channels; wanted a CogVideoX VAE"):
        VaeCodec(str(tmp_path), torch.float32)
    shutil.copytree(pipeline_folder / "vae", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_in.conv.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="weights are missing"):
        VaeCodec(str(tmp_path), torch.float32)


@pytest.mark.parametrize(
    "shape", [(3, 5, 8, 8), (1, 3, 4, 8, 8), (1, 3, 5, 8, 12), (1, 4, 5, 8, 8)]
)
def test_a_video_that_does_not_fit_the_blocks_is_refused(vae: VaeCodec, shape: tuple[int, ...]):
    for codec in (DctCodec(), vae):
        with pytest.raises(ModelError, match="one more than a multiple of 4"):
            codec.encode(_noise(*shape))


def test_whole_numbers_and_latents_of_other_channels_are_refused():
    with pytest.raises(ModelError, match=r"torch\.uint8; wanted .* floating"):
        DctCodec().encode(torch.zeros(1, 3, 5, 8, 8, dtype=torch.uint8))
    with pytest.raises(ModelError, match=r"found latents of \(1, 4, 2, 1, 1\)"):
        DctCodec().decode(torch.zeros(1, 4, 2, 1, 1))
