"""The parity gate: ten checks that hold, that touch nothing, and that fail when they should."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from safetensors.torch import load_file, save_file
from small_latents import DIM, TOKENS, small_latents
from small_training import quiet
from small_transformer import SMALL, base_of
from torch import Tensor

import model.adapted
import model.position
from model.adapter_file import ADAPTER
from model.config import AdapterConfig, EraeConfig, TransformerConfig
from model.extra_frame import open_model
from model.fp8 import store_in_fp8
from model.stock import stored
from model.weights import identify_base, load_base, save_base
from pipeline.errors import InputError
from training.course import Course, LoopSettings
from training.dataset import LatentDataset
from training.held_out import HeldOut, HeldOutSettings, hold_out
from training.objective import noise_schedule
from training.parity import CHECKS, WITHOUT_FORWARD, parity, refuse
from training.parity_case import Case
from training.step import OptimizerSettings, Training
from training.trainer import Trainer
from training.weights import AdapterWeights, BaseWeights

ROTARY = replace(SMALL, text_embed_dim=DIM, max_text_seq_length=TOKENS)
SINCOS = replace(ROTARY, use_rotary_positional_embeddings=False)
ADAPTER_CONFIG = AdapterConfig(rank=3, alpha=6)
HELD_OUT = HeldOutSettings(samples=2, draws=1)
Make = Callable[..., Case]


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_latents(tmp_path_factory.mktemp("latents"), count=8)


@pytest.fixture
def make(tmp_path: Path, latents: str) -> Make:
    torch.set_num_threads(1)
    return partial(_case, tmp_path, latents)


def _case(
    folder: Path,
    latents: str,
    config: TransformerConfig = ROTARY,
    adapter: AdapterConfig | None = ADAPTER_CONFIG,
    dtype: torch.dtype = torch.float32,
    snr_shift: float = 1.0,
    fp8: bool = False,
) -> Case:
    base = folder / "base"
    save_base(base_of(config), base)
    transformer = load_base(base, dtype)
    if fp8:
        store_in_fp8(transformer)
    network = open_model(transformer, adapter)
    dataset = LatentDataset(latents)
    course = Course(
        dataset,
        range(len(dataset)),
        HeldOut([], [], HeldOutSettings(), 0),
        torch.zeros(TOKENS, DIM),
        with_reference=adapter is not None,
        with_entity=adapter is not None and adapter.erae.train,
    )
    trained = network.optimised_parameters()
    schedule, optimizer = noise_schedule(snr_shift), OptimizerSettings()
    return Case(
        model=network,
        base=str(base),
        from_scratch=False,
        stored=lambda: stored(base),
        training=Training(network, trained, schedule, optimizer),
        trained=trained,
        weights=AdapterWeights(network, identify_base(base), {})
        if adapter
        else BaseWeights(network),
        course=course,
        loop=LoopSettings(batch=2, global_batch=2, text_drop=0.0),
        optimizer=optimizer,
        dataset=dataset,
        schedule=schedule,
        snr_shift=snr_shift,
        folder=folder / "run",
    )


def _failed(case: Case, resumed: bool = False) -> tuple[list[str], list[str]]:
    """Names of the checks that failed, and what was said."""
    said: list[str] = []
    return parity(case, said.append, resumed), said


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"config": SINCOS, "snr_shift": 3.0},
        {"dtype": torch.bfloat16},
        {"dtype": torch.bfloat16, "fp8": True},
        {"fp8": True},
        {"adapter": None},
        {"adapter": replace(ADAPTER_CONFIG, kind="extra_frame")},
        {"adapter": replace(ADAPTER_CONFIG, attention="independent", delta=(1, -2, 3))},
        {"adapter": replace(ADAPTER_CONFIG, erae=EraeConfig(train=True, layers="own"))},
        {"config": SINCOS, "snr_shift": 3.0, "adapter": replace(ADAPTER_CONFIG, delta=(1, 2, -3))},
    ],
)
def test_what_is_right_passes_all_ten(make: Make, kind: dict[str, Any]):
    failed, said = _failed(make(**kind))
    assert failed == [], said
    assert len(said) == 10
    assert all(
        f"{n:>2} of 10 {name:<9} ok: " in x
        for (n, name), x in zip(enumerate(CHECKS, 1), said, strict=True)
    )
    refuse(failed)


def test_it_leaves_everything_as_it_was(make: Make):
    case = make()
    weights = {name: one.clone() for name, one in case.model.state_dict().items()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert _failed(case)[0] == []
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[name], one) for name, one in case.model.state_dict().items())
    assert all(weight.grad is None for weight in case.model.parameters())
    assert case.training.optimizer.state() == {}
    assert list(case.folder.iterdir()) == []


def test_a_training_with_it_is_the_same_to_the_bit(make: Make):
    def trained(checks: bool) -> dict[str, Tensor]:
        case = make()
        numbers = range(len(case.dataset))
        held = hold_out(0, numbers, case.dataset.source_ids, case.dataset.__getitem__, HELD_OUT)
        trainer = Trainer(
            case.folder / str(checks),
            case.training,
            case.weights,
            replace(case.course, held_out=held),
            replace(case.loop, steps=2),
            {},
            parity=(lambda _: refuse(_failed(case)[0])) if checks else (lambda _: None),
        )
        assert trainer.run(lambda: 0, quiet).done
        return dict(case.trained)

    without = trained(checks=False)
    assert all(torch.equal(without[name], one) for name, one in trained(checks=True).items())


def test_a_run_that_goes_on_does_those_without_a_forward(make: Make):
    case = make()
    calls = []
    case.model.register_forward_hook(lambda *_: calls.append(1))
    failed, said = _failed(case, resumed=True)
    assert (failed, calls, len(said)) == ([], [], len(WITHOUT_FORWARD))


def test_a_base_that_changed_in_memory_is_found(make: Make):
    case = make()
    with torch.no_grad():
        case.model.get_parameter("transformer.transformer_blocks.2.ff.net.2.bias")[3] += 0.1
    failed, said = _failed(case)
    assert failed == ["stock", "base"]
    assert "FAILED: all " in said[1]
    with pytest.raises(InputError, match="failed at stock, base: nothing was trained"):
        refuse(failed)


def test_a_base_in_eight_bits_that_changed_is_found(make: Make):
    case = make(fp8=True)
    with torch.no_grad():
        case.model.get_parameter("transformer.transformer_blocks.1.attn1.to_k.scale")[5] *= 4
    failed, said = _failed(case)
    assert failed == ["base"]
    assert "weights in eight bits are " in said[1]


def test_a_base_that_changed_on_disk_is_found(make: Make):
    case = make()
    (file,) = (Path(case.base) / "transformer").glob("*.safetensors")
    weights = load_file(file)
    weights["transformer_blocks.1.attn1.to_v.weight"][0, 0] += 0.5
    save_file(weights, file, {"format": "pt"})
    assert _failed(case)[0] == ["stock", "base"]


def test_places_of_the_video_that_are_shifted_are_found(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    right = model.adapted.video_rotary

    def shifted(*told: Any) -> tuple[Tensor, ...]:
        return tuple(table.roll(1, 0) for table in right(*told))

    monkeypatch.setattr("model.adapted.video_rotary", shifted)
    monkeypatch.setattr("training.parity_positions.video_rotary", shifted)
    # The calls with a reference have their places from elsewhere, and differ from those without.
    assert _failed(make())[0] == ["stock", "places", "hidden"]


@pytest.mark.parametrize("config", [ROTARY, SINCOS])
def test_a_reference_at_another_place_is_found(
    make: Make, config: TransformerConfig, monkeypatch: pytest.MonkeyPatch
):
    name = "reference_rotary" if config is ROTARY else "reference_table"
    right = getattr(model.position, name)

    def shifted(grid: Any, count: int, delta: Any, *told: Any) -> Any:
        return right(grid, count, (0, 0, -1), *told)

    monkeypatch.setattr(f"training.parity_positions.{name}", shifted)
    assert _failed(make(config=config, snr_shift=1.0 if config is ROTARY else 3.0))[0] == ["places"]


@pytest.mark.parametrize("config", [ROTARY, SINCOS])
def test_the_noise_of_another_base_is_found(make: Make, config: TransformerConfig):
    wrong = 3.0 if config is ROTARY else 1.0
    failed, said = _failed(make(config=config, snr_shift=wrong))
    assert failed == ["noise", "loss"]
    assert f"alpha-bar at snr_shift {wrong:g}, with diffusers' at {4 - wrong:g}" in said[3]


def test_a_base_s_own_scheduler_counts(make: Make):
    case = make(snr_shift=2.0)
    assert _failed(case)[0] == ["noise", "loss"]
    scheduler = CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear", rescale_betas_zero_snr=True, snr_shift_scale=2.0
    )
    scheduler.save_pretrained(Path(case.base) / "scheduler")
    assert _failed(case)[0] == []


class _Damaging(AdapterWeights):
    """A disk that flips a bit of every adapter."""

    def save(self, folder: Path) -> None:
        super().save(folder)
        content = bytearray((folder / ADAPTER).read_bytes())
        content[-5] ^= 64
        (folder / ADAPTER).write_bytes(content)


class _Cutting(AdapterWeights):
    """A disk that loses the end of every adapter."""

    def save(self, folder: Path) -> None:
        super().save(folder)
        (folder / ADAPTER).write_bytes((folder / ADAPTER).read_bytes()[:-100])


@pytest.mark.parametrize("kind", [_Damaging, _Cutting])
def test_an_adapter_that_is_damaged_on_disk_is_found(make: Make, kind: type[AdapterWeights]):
    case = make()
    weights = kind(case.model, identify_base(case.base), {})
    before = {name: one.clone() for name, one in case.trained.items()}
    assert _failed(replace(case, weights=weights))[0] == ["weights"]
    assert all(torch.equal(before[name], one) for name, one in case.trained.items())


def test_a_weight_of_the_base_that_learns_is_found(make: Make):
    case = make()
    case.model.transformer.proj_out.bias.requires_grad_(True)
    failed, said = _failed(case)
    assert failed == ["gradients"]
    assert "1 weights too many or few: transformer.proj_out.bias" in said[6]


def test_a_weight_that_is_left_out_is_found(make: Make):
    case = make()
    few = dict(list(case.trained.items())[1:])
    assert _failed(replace(case, trained=few))[0] == ["gradients"]


def test_a_sample_that_is_not_the_index_s_is_found(make: Make, latents: str, tmp_path: Path):
    case = make()
    url = small_latents(tmp_path / "copy", count=8)
    opened = LatentDataset(url)
    shard = next(Path(url).glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    failed, said = _failed(replace(case, dataset=opened))
    assert failed == ["dataset"]
    assert "of another sha256" in said[9]


def test_latents_of_another_encoder_than_the_base_s_are_found(make: Make):
    case = make()
    known = {"latents.codec": "vae", "latents.text": "tiny", "snr_shift": 1.0}
    state = {"step": 1, "samples": 1, "constants": {}, "settings": known}
    (Path(case.base) / "state.json").write_text(json.dumps(state))
    failed, said = _failed(case)
    assert failed == ["dataset"]
    assert "another codec" in said[9]
