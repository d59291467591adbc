"""Latents: what is in the file of a sample, and that it follows from its inputs alone."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load
from small_samples import packed_sample
from small_vae import SCALING, save_vae
from transformers import T5EncoderModel, T5Tokenizer

from model.codec import DctCodec
from model.text import TextEncoder, build_tiny
from pipeline import storage, video
from pipeline.clip import Clip, Failed, Measurement, clip_id
from pipeline.errors import InputError
from pipeline.sample_tar import unpack
from stages.augment import AugmentSettings, augmented
from stages.encoders import LatentsSettings, encode_pictures
from stages.latents import Latents
from stages.networks.placement import Placement

CAPTION = "A red ball rolls over a floor, and the red ball stops."
SETTINGS = LatentsSettings("dct", "tiny", 96, 64, 24, "f32", placement=Placement(batch=4))
CLIP = Clip(clip_id("ball.mp4"), "ball.mp4", "/nowhere/ball.mp4", CAPTION, "source")


def known(sample: dict[str, str], phrase: str = "red ball") -> Any:
    """The facts that the stage reads."""
    return {"sample": sample, "entities": {"phrase": phrase}}


class Newer(Latents):
    """The stage as it will be when its numbers have changed."""

    version = Latents.version + 1


CHANGED: dict[str, Any] = {
    "width": 48,
    "height": 48,
    "max_tokens": 30,
    "dtype": "f16",
    "placement": Placement(dtype="bf16", batch=4),
    "augment": AugmentSettings(variants=1),
}


class Place:
    """A folder with two samples and a text encoder."""

    def __init__(self, folder: Path, images: np.ndarray, reference: np.ndarray) -> None:
        self.folder = folder
        self.text = str(folder / "text")
        build_tiny(self.text, [CAPTION])
        self.ball = self.sample("ball.tar", images, reference)
        self.other = self.sample("other.tar", images, 255 - reference)

    def sample(self, name: str, images: np.ndarray, reference: np.ndarray) -> dict[str, str]:
        packed = packed_sample(CLIP.clip_id, CAPTION, images, reference)
        storage.create(str(self.folder / "samples" / name), packed)
        return {"name": name, "sha256": hashlib.sha256(packed).hexdigest()}

    def stage(
        self, settings: LatentsSettings = SETTINGS, out: str = "out", text: str = ""
    ) -> Latents:
        folder = self.folder
        stage = Latents(settings, text or self.text, str(folder / "samples"), str(folder / out))
        stage.setup()
        return stage

    def built(
        self, stage: Latents, sample: dict[str, str] | None = None, phrase: str = "red ball"
    ) -> Any:
        (outcome,) = stage.measure([CLIP], [None], [known(sample or self.ball, phrase)])
        return outcome

    def blob(self, outcome: Any, out: str = "out") -> bytes:
        assert isinstance(outcome, Measurement), outcome
        packed = (self.folder / out / outcome.values["name"]).read_bytes()
        (content,) = unpack(CLIP.clip_id, packed).values()
        return content


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, texture: Callable[..., np.ndarray]) -> Place:
    wide = texture(128, 400, 1) // 2 + 50
    images = np.stack([wide[:, 8 * n : 8 * n + 192] for n in range(25)])
    return Place(tmp_path_factory.mktemp("latents"), images, texture(128, 192, 2))


def test_video_reference_and_text_are_what_the_encoders_say(place: Place) -> None:
    stage = place.stage()
    tensors = load(place.blob(place.built(stage)))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "video": (16, 7, 8, 12),
        "reference": (16, 1, 8, 12),
        "text": (24, 64),
    }
    members = unpack(CLIP.clip_id, (place.folder / "samples/ball.tar").read_bytes())
    pictures = video.decode(members["mp4"])
    decoded = DctCodec().decode(tensors["video"][None])[0].permute(1, 2, 3, 0)
    small = np.stack([np.asarray(Image.fromarray(p).reduce(2)) for p in pictures])
    error = (decoded.numpy() + 1) * 127.5 - small
    assert 20 * np.log10(255 / np.sqrt((error**2).mean())) > 20


def test_the_metadata_names_the_entity_by_its_tokens(place: Place, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(place.blob(place.built(place.stage())))
    with safe_open(tmp_path / "blob", "pt") as file:
        about = file.metadata()
    assert about["key"] == CLIP.clip_id
    assert about["caption"] == CAPTION
    tokens = json.loads(about["entity_tokens"])
    assert tokens == TextEncoder(place.text, 24).spans(CAPTION, "red ball")
    assert len(tokens) == 4
    assert about["codec"] == DctCodec().fingerprint()
    assert about["text"] == TextEncoder(place.text, 24).fingerprint()
    assert (about["width"], about["height"]) == ("96", "64")
    assert (about["interval"], about["reference_version"]) == ("5", "9")


def test_built_twice_it_is_one_file_and_built_elsewhere_the_same_bytes(place: Place) -> None:
    first = place.built(place.stage())
    assert place.built(place.stage()) == first
    other = place.built(place.stage(out="elsewhere"))
    assert other == first
    assert place.blob(other, "elsewhere") == place.blob(first)


def test_text_is_what_t5_says_by_itself(place: Place) -> None:
    tensors = load(place.blob(place.built(place.stage())))
    tokenizer = T5Tokenizer.from_pretrained(place.text, subfolder="tokenizer")
    encoder = T5EncoderModel.from_pretrained(place.text, subfolder="text_encoder").eval()
    tokens = tokenizer(CAPTION, padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():
        wanted = encoder(tokens.input_ids).last_hidden_state[0]
    torch.testing.assert_close(tensors["text"], wanted, rtol=0, atol=1e-6)


def test_moments_are_diffusers_untiled_and_scaled_and_the_reference_is_the_mode(
    place: Place, tmp_path: Path
) -> None:
    folder = save_vae(tmp_path, sample_height=16, sample_width=16)  # tiles would be of 8 px
    settings = replace(SETTINGS, codec=folder, width=192, height=128)
    tensors = load(place.blob(place.built(place.stage(settings, "vae")), "vae"))
    vae: Any = AutoencoderKLCogVideoX.from_pretrained(folder, subfolder="vae")
    members = unpack(CLIP.clip_id, (place.folder / "samples/ball.tar").read_bytes())
    picture = np.asarray(Image.open(io.BytesIO(members["reference.png"])))

    def moments(images: np.ndarray) -> torch.Tensor:
        pixels = torch.tensor(images).permute(3, 0, 1, 2)[None] / 127.5 - 1
        with torch.no_grad():
            return vae.encode(pixels).latent_dist.parameters[0]

    mean, logvar = moments(video.decode(members["mp4"])).chunk(2)
    assert torch.equal(tensors["video"], mean * SCALING)
    torch.testing.assert_close(tensors["video_std"], (0.5 * logvar).exp() * SCALING)
    assert torch.equal(tensors["reference"], moments(picture[None])[:16] * SCALING)


def test_each_thing_that_made_them_is_in_the_address(place: Place, tmp_path: Path) -> None:
    build_tiny(str(tmp_path / "other"), [CAPTION], seed=1)
    vae = replace(SETTINGS, codec=save_vae(tmp_path / "vae"))
    stages = [
        place.stage(),
        *(place.stage(replace(SETTINGS, **{k: v})) for k, v in CHANGED.items()),
        place.stage(text=str(tmp_path / "other")),
        place.stage(vae),
        Newer(SETTINGS, place.text, str(place.folder / "samples"), str(place.folder / "out")),
    ]
    stages[-1].setup()
    outcomes = [place.built(stage) for stage in stages]
    save_vae(tmp_path / "vae", seed=1)  # the same name, other weights
    outcomes.append(place.built(place.stage(vae)))
    outcomes += [
        place.built(place.stage(), place.other),
        place.built(place.stage(), phrase="floor"),
    ]
    assert len({outcome.values["address"] for outcome in outcomes}) == len(outcomes)


def test_where_encoders_run_and_how_many_texts_at_once_is_not(place: Place) -> None:
    elsewhere = replace(SETTINGS, placement=Placement("cpu", batch=1))
    assert place.built(place.stage(elsewhere, "one")) == place.built(place.stage())
    assert place.stage(elsewhere).settings() == place.stage().settings()


def test_in_a_batch_each_sample_succeeds_or_fails_by_itself(place: Place) -> None:
    stage = place.stage(out="batch")
    ball, gone = place.ball, {"name": "gone", "sha256": "2"}
    facts = [known(ball), known(ball, "blue cube"), known(place.other), known(gone)]
    outcomes = stage.measure([CLIP] * 4, [None] * 4, facts)
    codes = [each.code if isinstance(each, Failed) else None for each in outcomes]
    assert codes == [None, "entity", None, "sample"]
    assert outcomes[0] == place.built(place.stage())


def test_an_encoder_that_overflows_has_failed(place: Place, tmp_path: Path) -> None:
    folder = save_vae(tmp_path, scaling_factor=1e9)  # beyond f16
    settings = replace(SETTINGS, codec=folder, dtype="f16")
    outcome = place.built(place.stage(settings, "large"))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message[:9]) == ("not_finite", "its video")


def test_variants_are_modes_of_the_augmented_reference(place: Place) -> None:
    augment = AugmentSettings(variants=3)
    stage = place.stage(replace(SETTINGS, augment=augment))
    tensors, plain = (load(place.blob(place.built(s))) for s in (stage, place.stage()))
    assert "variants" not in plain
    members = unpack(CLIP.clip_id, (place.folder / "samples/ball.tar").read_bytes())
    picture = np.asarray(Image.open(io.BytesIO(members["reference.png"])))
    views = [augmented(picture, f"{CLIP.clip_id}/{n}", augment) for n in range(3)]
    wanted = torch.cat([encode_pictures(DctCodec(), v[None], (96, 64)) for v in views], 1)
    assert torch.equal(tensors.pop("variants"), wanted)
    assert all(torch.equal(tensors[name], plain[name]) for name in plain)


def test_half_precision_keeps_the_numbers(place: Place) -> None:
    exact = load(place.blob(place.built(place.stage())))
    half = load(place.blob(place.built(place.stage(replace(SETTINGS, dtype="f16")))))
    for name, tensor in half.items():
        assert tensor.dtype == torch.float16
        torch.testing.assert_close(tensor.float(), exact[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("phrase", "name", "code"),
    [
        ("blue cube", "ball.tar", "entity"),
        ("red ball", "gone.tar", "sample"),
        ("red ball", "flipped.tar", "sample"),
    ],
)
def test_what_cannot_be_encoded_has_failed(place: Place, phrase: str, name: str, code: str) -> None:
    samples = place.folder / "samples"
    flipped = bytearray((samples / "ball.tar").read_bytes())
    flipped[flipped.index(b"mdat") + 1000] ^= 1  # of the video, which decodes all the same
    (samples / "flipped.tar").write_bytes(flipped)
    outcome = place.built(place.stage(out=f"new-{name}"), {**place.ball, "name": name}, phrase)
    assert isinstance(outcome, Failed)
    assert outcome.code == code


def test_an_entity_that_the_text_is_cut_off_before_has_failed(place: Place) -> None:
    outcome = place.built(place.stage(replace(SETTINGS, max_tokens=2)))
    assert isinstance(outcome, Failed)
    assert "cut off" in outcome.message


def test_a_picture_is_scaled_to_the_size_of_the_latents(texture: Callable[..., np.ndarray]) -> None:
    picture = texture(64, 96, 5)
    large = np.asarray(Image.fromarray(picture).resize((192, 128), Image.Resampling.NEAREST))
    codec = DctCodec()
    found, wanted = (encode_pictures(codec, p[None], (96, 64)) for p in (large, picture))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)


def test_impossible_sizes_and_missing_encoders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiples of 16"):
        LatentsSettings(width=100)
    with pytest.raises(InputError, match="found f16, in which T5 overflows"):
        LatentsSettings(placement=Placement(dtype="f16"))
    stage = Latents(replace(SETTINGS, text="t"), str(tmp_path / "none"), "", "")
    with pytest.raises(InputError, match=r"latents\.text"):
        stage.setup()
