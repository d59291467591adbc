"""The pipeline from Python: diffusers' own numbers without a reference, and fits or says why."""

from __future__ import annotations

import gc
import re
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_pipeline import (
    HEIGHT,
    LIKE_2B,
    LIKE_5B,
    PROMPT,
    TOKENS,
    WIDTH,
    save_pipeline,
    save_trained,
    stock_pipeline,
)

from model.errors import ModelError
from model.offload import VisitingLayers, visiting
from model.pipeline import CustomVideoXPipeline
from model.sampling import Step
from pipeline import video as mp4

RUNNING = Path(__file__).parents[2] / "docs" / "running.md"
SHORT: dict[str, Any] = {"num_frames": 9, "num_inference_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Path:
    return save_trained(folder, folder / "adapter.safetensors")


def opened(folder: Path, adapter: Path | None = None, **options: Any) -> CustomVideoXPipeline:
    return CustomVideoXPipeline.from_pretrained(folder, adapter, dtype=torch.float32, **options)


@pytest.fixture(scope="module")
def pipe(folder: Path, adapter: Path) -> CustomVideoXPipeline:
    return opened(folder, adapter)


def picture(red: int = 200) -> np.ndarray:
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    pixels[8:24, 16:32] = (red, 20, 20)
    return pixels


@pytest.mark.parametrize(
    ("config", "snr_shift", "steps", "negative"),
    [(LIKE_5B, 1.0, 10, ""), (LIKE_5B, 1.0, 4, "blurred and grey"), (LIKE_2B, 3.0, 5, "")],
)
def test_without_a_reference_latents_and_frames_are_those_of_diffusers_to_the_bit(
    tmp_path: Path, config: Any, snr_shift: float, steps: int, negative: str
) -> None:
    """With an adapter loaded, and the whole of diffusers' pipeline as the oracle."""
    save_pipeline(tmp_path, config, snr_shift)
    stock = stock_pipeline(tmp_path)
    wanted: list[Any] = []
    for kind in ("latent", "pil"):
        given = {"generator": torch.Generator().manual_seed(7), "negative_prompt": negative}
        sizes = {"height": HEIGHT, "width": WIDTH, "num_frames": 9, "max_sequence_length": TOKENS}
        how = {"num_inference_steps": steps, "guidance_scale": 6.0, "use_dynamic_cfg": False}
        wanted.append(stock(PROMPT, output_type=kind, **given, **sizes, **how).frames)
    ours = opened(tmp_path, save_trained(tmp_path, tmp_path / "adapter.safetensors"))
    found = ours(PROMPT, negative_prompt=negative, seed=7, num_frames=9, num_inference_steps=steps)
    assert torch.equal(found.latents, wanted[0])
    assert np.array_equal(found.pixels[0], np.stack([np.asarray(one) for one in wanted[1][0]]))
    assert found.pixels.std() > 5


def test_the_five_lines_of_the_docs_make_a_video(
    folder: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word, with the names of the example's weights turned into those of tiny ones."""
    blocks = re.findall(r"```python\n(.*?)```", RUNNING.read_text(), re.DOTALL)
    (lines,) = [block for block in blocks if "CustomVideoXPipeline" in block]
    names = re.findall(r'from_pretrained\("([^"]+)", adapter="([^"]+)"\)', lines)
    ((base, trained),) = names
    assert len([line for line in lines.splitlines() if line and "import" not in line]) == 5
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture()).save("dog.png")
    lines = lines.replace(base, str(folder)).replace(trained, str(adapter))
    exec(compile(lines, str(RUNNING), "exec"), {})
    shown = mp4.decode((tmp_path / "dog.mp4").read_bytes())
    assert shown.shape == (25, HEIGHT, WIDTH, 3)


def test_the_picture_the_entity_and_the_negative_prompt_each_say_something(
    pipe: CustomVideoXPipeline,
) -> None:
    red = pipe(PROMPT, picture(), "red ball", **SHORT).latents
    assert torch.equal(pipe(PROMPT, Image.fromarray(picture()), "red ball", **SHORT).latents, red)
    for other in (
        pipe(PROMPT, picture(10), "red ball", **SHORT),
        pipe(PROMPT, picture(), None, **SHORT),
        pipe(PROMPT, None, **SHORT),
        pipe(PROMPT, picture(), "red ball", negative_prompt="blurred and grey", **SHORT),
        pipe(PROMPT, picture(), "red ball", reference_guidance_scale=3.0, **SHORT),
    ):
        assert not torch.equal(other.latents, red)


@pytest.mark.parametrize(("config", "wanted"), [(LIKE_5B, 1.0), (LIKE_2B, 3.0)])
def test_a_base_without_a_scheduler_has_that_of_its_kind(
    tmp_path: Path, config: Any, wanted: float
) -> None:
    save_pipeline(tmp_path, config, snr_shift=2.0)
    assert opened(tmp_path).snr_shift == 2.0
    shutil.rmtree(tmp_path / "scheduler")
    assert opened(tmp_path).snr_shift == wanted


def test_several_seeds_are_several_videos_each_as_if_alone(pipe: CustomVideoXPipeline) -> None:
    told: list[Step] = []
    both = pipe(PROMPT, picture(), "red ball", seed=[4, 5], progress=told.append, **SHORT)
    alone = pipe(PROMPT, picture(), "red ball", seed=5, **SHORT)
    assert both.pixels.shape == (2, 9, HEIGHT, WIDTH, 3)
    assert np.array_equal(both.pixels[1], alone.pixels[0])
    assert [[step.number for step in video] for video in both.steps] == [[0, 1]] * 2
    assert len(told) == 4
    assert [len(video) for video in both.frames] == [9, 9]


def test_several_references_have_an_entity_each(pipe: CustomVideoXPipeline) -> None:
    pictures, words = [picture(), picture(10)], ["red ball", "green field"]
    both = pipe(PROMPT, pictures, words, **SHORT)
    assert not torch.equal(both.latents, pipe(PROMPT, pictures, words[::-1], **SHORT).latents)


def test_guidance_of_one_is_the_prompt_alone(pipe: CustomVideoXPipeline) -> None:
    """One call a step, in which no negative prompt can act."""
    for given in ({}, {"reference": picture(), "entity": "red ball"}):
        how: dict[str, Any] = {"guidance_scale": 1.0, **given, **SHORT}
        other = pipe(PROMPT, negative_prompt="blurred and grey", **how)
        assert torch.equal(other.latents, pipe(PROMPT, **how).latents)


def test_a_base_in_eight_bits_is_near_the_whole_one(
    pipe: CustomVideoXPipeline, folder: Path, adapter: Path
) -> None:
    given: dict[str, Any] = {"reference": picture(), "entity": "red ball", **SHORT}
    wanted = pipe(PROMPT, **given).latents
    found = opened(folder, adapter, fp8_storage=True)(PROMPT, **given).latents
    assert not torch.equal(found, wanted)
    assert (found - wanted).norm() < 0.2 * wanted.norm()


def test_zeros_for_no_text_give_way_to_a_negative_prompt(folder: Path) -> None:
    model, codec, text = (lambda p: (p.model, p.codec, p.text_encoder))(opened(folder))
    zeros = CustomVideoXPipeline(model, codec, text, null_text="zeros")
    assert not torch.equal(zeros(PROMPT, **SHORT).latents, opened(folder)(PROMPT, **SHORT).latents)
    told = {"negative_prompt": "blurred and grey", **SHORT}
    assert torch.equal(zeros(PROMPT, **told).latents, opened(folder)(PROMPT, **told).latents)


def test_prompts_that_are_kept_need_no_text_encoder_any_more(folder: Path, adapter: Path) -> None:
    one = opened(folder, adapter)
    wanted = one(PROMPT, picture(), "red ball", **SHORT).latents
    one.keep_prompts([PROMPT])
    assert one.text_encoder.networks == ()
    assert torch.equal(one(PROMPT, picture(), "red ball", **SHORT).latents, wanted)
    with pytest.raises(ModelError, match="the encoder was let go"):
        one("Another prompt.", **SHORT)


def test_a_text_encoder_that_is_let_go_leaves_memory_even_when_offloaded(folder: Path) -> None:
    one = opened(folder).enable_model_cpu_offload("cpu")
    (network,) = one.text_encoder.networks
    weight = weakref.ref(network.shared.weight)
    del network
    one.keep_prompts([PROMPT])
    gc.collect()
    assert weight() is None


@pytest.mark.parametrize("how", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_offloading_where_there_is_no_gpu_changes_no_bit(
    pipe: CustomVideoXPipeline, folder: Path, adapter: Path, how: str, device: str
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    other = opened(folder, adapter)
    getattr(other, how)(device)
    found = other(PROMPT, picture(), "red ball", **SHORT)
    assert torch.equal(found.latents, pipe(PROMPT, picture(), "red ball", **SHORT).latents)


META = torch.device("meta")
"""A device without memory: an operation that meets weights from elsewhere fails on it."""


def _devices(networks: Sequence[torch.nn.Module]) -> set[torch.device]:
    return {weight.device for network in networks for weight in network.state_dict().values()}


def _on_meta(pipe: CustomVideoXPipeline, reference: bool) -> torch.Size:
    latents = torch.zeros(1, 2, 16, HEIGHT // 8, WIDTH // 8, device=META)
    at = torch.zeros(1, dtype=torch.int64, device=META)
    text = torch.zeros(1, TOKENS, 64, device=META)
    with torch.no_grad():
        if not reference:
            return pipe.model(latents, at, text).shape
        return pipe.model(latents, at, text, latents[:, :1], sampling=True).shape


@pytest.mark.parametrize("reference", [True, False])
def test_a_visit_takes_all_weights_along_and_brings_them_back(
    folder: Path, adapter: Path, reference: bool
) -> None:
    one = opened(folder, adapter)
    networks = (one.model, *one.codec.networks, *one.text_encoder.networks)
    before = {name: weight for network in networks for name, weight in network.named_parameters()}
    with visiting(networks, META):
        assert _devices(networks) == {META}
        assert _on_meta(one, reference) == (1, 2, 16, HEIGHT // 8, WIDTH // 8)
    after = {name: weight for network in networks for name, weight in network.named_parameters()}
    assert all(after[name] is weight for name, weight in before.items())


@pytest.mark.parametrize("fp8_storage", [False, True])
@pytest.mark.parametrize("reference", [True, False])
def test_layers_visit_for_their_own_call_alone(
    folder: Path, adapter: Path, reference: bool, fp8_storage: bool
) -> None:
    """Not one operation of the transformer reads a weight outside of its layer's call."""
    one = opened(folder, adapter, fp8_storage=fp8_storage)
    VisitingLayers(one.model.transformer, META)
    held: list[int] = []

    def count(*_: object) -> None:
        held.append(sum(w.is_meta for w in one.model.transformer.state_dict().values()))

    for layer in one.model.transformer.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    assert one.model.lora is not None
    with visiting([one.model.lora], META):
        assert _on_meta(one, reference) == (1, 2, 16, HEIGHT // 8, WIDTH // 8)
    assert max(held) <= 3  # weight, bias, and of eight bits their scale
    assert _devices([one.model]) == {torch.device("cpu")}


def test_a_layer_that_fails_is_home_again(folder: Path) -> None:
    one = opened(folder)
    VisitingLayers(one.model.transformer, META)
    with pytest.raises(RuntimeError):
        one(PROMPT, **SHORT)  # the latents are on the CPU
    assert _devices([one.model]) == {torch.device("cpu")}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"entity": "cat"}, "found no 'cat' in the prompt"),
        ({"num_frames": 13}, "num_frames: found 13; wanted 1 more than a multiple of 8"),
        ({"width": 40}, "found a video of 40x32; wanted multiples of 16 pixels"),
        ({"width": 64}, r"found a picture of \(32, 48, 3\) uint8; wanted \(32, 64, 3\)"),
        ({"reference": picture().astype(float)}, "float64; wanted .* uint8 RGB"),
        ({"num_inference_steps": 0}, "found steps 0"),
    ],
)
def test_what_does_not_fit_is_one_line(
    pipe: CustomVideoXPipeline, given: dict[str, Any], error: str
) -> None:
    with pytest.raises(ModelError, match=error) as caught:
        pipe(PROMPT, **{"reference": picture(), "entity": "red ball", **SHORT, **given})
    assert "\n" not in str(caught.value)


def test_a_reference_without_an_adapter_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="found a reference and no adapter"):
        opened(folder)(PROMPT, picture(), "red ball", **SHORT)


def test_an_adapter_of_other_encoders_or_another_size_is_told(folder: Path, tmp_path: Path) -> None:
    file = save_trained(folder, tmp_path / "adapter.safetensors", codec="0123", width="720")
    with pytest.raises(ModelError, match="was trained on latents of the codec 0123, this one is"):
        opened(folder, tmp_path)
    own = opened(folder).codec.fingerprint()
    save_trained(folder, file, codec=own, width="64", height="48")
    assert opened(folder, file).size == (64, 48)
    with pytest.raises(ModelError, match=r"none\.safetensors: wanted an adapter file"):
        opened(folder, tmp_path / "none.safetensors")


def test_other_encoders_than_the_base_wants_are_refused(folder: Path, tmp_path: Path) -> None:
    from model.text import build_tiny

    build_tiny(str(tmp_path), [PROMPT], dim=32)
    with pytest.raises(ModelError, match="text encoder's width: found 32, the base wants 64"):
        opened(folder, text_encoder=str(tmp_path))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")
@pytest.mark.parametrize("how", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_on_a_gpu_offloading_makes_the_same_video_with_less_memory(
    folder: Path, adapter: Path, how: str
) -> None:
    resident = opened(folder, adapter).to("cuda")
    wanted, most = _measured(resident)
    del resident
    other = opened(folder, adapter)
    getattr(other, how)()
    found, least = _measured(other)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert least < most
    assert _devices(other.codec.networks) == {torch.device("cpu")}


def _measured(pipe: CustomVideoXPipeline) -> tuple[torch.Tensor, int]:
    """Latents, and the most memory of weights and all that was held at once."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    latents = pipe(PROMPT, picture(), "red ball", **SHORT).latents
    return latents, torch.cuda.max_memory_allocated()
