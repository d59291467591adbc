"""Files: a base and an adapter come back as they were, and what does not fit is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from peft import LoraConfig
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from model.adapter_file import load_adapter, read_header, save_adapter
from model.config import TINY, AdapterConfig, EraeConfig, TabConfig
from model.errors import ModelError
from model.transformer import CustomVideoX
from model.weights import (
    Base,
    identify_base,
    init_tiny_base,
    load_base,
    save_base,
)

SMALL = replace(TINY, num_layers=2, attention_head_dim=16)
BASE = Base("here/base", "", "0123456789abcdef")
ADAPTER = AdapterConfig(rank=4, alpha=8, delta=(0, 0, -7), attention="independent")


def trained(adapter: AdapterConfig = ADAPTER) -> CustomVideoX:
    model = CustomVideoX(init_tiny_base(0, SMALL), adapter)
    for weight in model.adapter_parameters().values():
        nn.init.normal_(weight)
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "adapter.safetensors"
    save_adapter(trained(), path, BASE, {"stride": "3"})
    return path


def test_a_base_comes_back_with_its_name(tmp_path: Path) -> None:
    base = init_tiny_base(1, SMALL)
    save_base(base, tmp_path)
    again = load_base(tmp_path)
    wanted = base.state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in again.state_dict().items())
    assert load_base(tmp_path / "transformer", torch.bfloat16).dtype == torch.bfloat16
    known = identify_base(tmp_path)
    assert known.fingerprint == identify_base(tmp_path / "transformer").fingerprint
    save_base(init_tiny_base(2, SMALL), tmp_path)
    assert known.fingerprint != identify_base(tmp_path).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 32}, "found image-to-video weights"),
        ({"patch_size_t": 2}, r"found CogVideoX 1\.5"),
        ({"_class_name": "WanTransformer3DModel"}, "found a WanTransformer3DModel"),
    ],
)
def test_another_kind_of_base_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    save_base(init_tiny_base(1, SMALL), tmp_path)
    config = tmp_path / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        load_base(tmp_path)


def test_a_base_that_is_not_there_or_damaged_is_one_line(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nowhere", "no such name"):
        with pytest.raises(ModelError, match="wanted a CogVideoX") as caught:
            load_base(missing)
        assert "\n" not in str(caught.value)
    save_base(init_tiny_base(1, SMALL), tmp_path)
    file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    some = load_file(file)
    del some["proj_out.weight"]
    save_file(some, file)
    with pytest.raises(ModelError, match=r"1 weights are missing, as proj_out\.weight"):
        load_base(tmp_path)
    file.write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_base(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_base_of_several_files_comes_back_with_a_name(tmp_path: Path) -> None:
    base = init_tiny_base(1, SMALL)
    base.save_pretrained(tmp_path / "transformer", max_shard_size="200KB")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 2
    wanted = base.state_dict()
    again = load_base(tmp_path).state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in again.items())
    known = identify_base(tmp_path)
    last = max((tmp_path / "transformer").glob("*.safetensors"))
    save_file({name: weight + 1 for name, weight in load_file(last).items()}, last)
    assert identify_base(tmp_path).fingerprint != known.fingerprint


def test_a_model_of_the_hub_without_a_transformer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--some--words"
    for folder, name, text in (("refs", "main", "a" * 40), ("snapshots", "a" * 40 + "/x.md", "")):
        (kept / folder / name).parent.mkdir(parents=True)
        (kept / folder / name).write_text(text)
    with pytest.raises(
        ModelError, match=r"some/words: found no transformer/config\.json"
    ) as caught:
        load_base("some/words")
    assert "\n" not in str(caught.value)


def test_an_adapter_is_kept_in_fp32_whatever_the_model_became(file: Path) -> None:
    save_adapter(trained().to(torch.bfloat16), file, BASE)
    assert {weight.dtype for weight in load_file(file).values()} == {torch.float32}


def test_an_adapter_comes_back(file: Path) -> None:
    wanted, model = trained(), CustomVideoX(init_tiny_base(0, SMALL), ADAPTER)
    torch.manual_seed(0)
    header = read_header(file)
    assert header.config == ADAPTER
    assert header.base == BASE
    assert header.made_with == {"stride": "3"}
    stored = {name: w.clone() for name, w in wanted.adapter_parameters().items()}
    save_adapter(wanted, file, BASE)
    load_adapter(model, file, BASE)
    loaded = model.adapter_parameters()
    assert all(torch.equal(weight, loaded[name]) for name, weight in stored.items())
    assert [path.name for path in file.parent.iterdir()] == ["adapter.safetensors"]


def test_diffusers_knows_the_names_and_the_settings(file: Path) -> None:
    base = init_tiny_base(0, SMALL)
    weights, settings = CogVideoXPipeline.lora_state_dict(str(file), return_lora_metadata=True)
    base.load_lora_adapter(weights, prefix="transformer", metadata=settings)
    (name,) = base.peft_config
    layer = cast(Any, base.transformer_blocks[1]).attn1.to_out[0]
    assert layer.scaling[name] == 2.0
    assert layer.lora_B[name].weight.any()


def test_the_file_has_the_names_that_diffusers_writes_for_peft(file: Path, tmp_path: Path) -> None:
    base = init_tiny_base(0, SMALL)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    base.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    CogVideoXPipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=cast(Any, get_peft_model_state_dict(base))
    )
    theirs, ours = load_file(tmp_path / "pytorch_lora_weights.safetensors"), load_file(file)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_merging_into_the_base_is_refused(file: Path, tmp_path: Path) -> None:
    """Merged it would act on text and video too; and what was merged is another base."""
    base = init_tiny_base(0, SMALL)
    save_base(base, tmp_path / "before")
    weights, settings = CogVideoXPipeline.lora_state_dict(str(file), return_lora_metadata=True)
    base.load_lora_adapter(weights, prefix="transformer", metadata=settings)
    with pytest.raises(ModelError, match="loaded or merged into it, where it acts on all tokens"):
        CustomVideoX(base, ADAPTER)
    base.fuse_lora()
    with pytest.raises(ModelError, match="loaded or merged into it, where it acts on all tokens"):
        CustomVideoX(base, ADAPTER)
    base.unload_lora()
    save_base(base, tmp_path / "merged")
    before, merged = (identify_base(tmp_path / name) for name in ("before", "merged"))
    save_adapter(trained(), file, before)
    with pytest.raises(ModelError, match=r"trained on .*before .*; found the base .*merged"):
        load_adapter(CustomVideoX(load_base(tmp_path / "merged"), ADAPTER), file, merged)


@pytest.mark.parametrize(
    ("adapter", "base", "message"),
    [
        (ADAPTER, Base("there", "", "fedcba9876543210"), "trained on here/base .0123456789ab"),
        (replace(ADAPTER, delta="-width"), BASE, r"trained with delta = \(0, 0, -7\)"),
        (replace(ADAPTER, tab=TabConfig(train=False)), BASE, r"trained with tab\.train = True"),
        (replace(ADAPTER, rank=8), BASE, "trained with rank = 4; the run has 8"),
    ],
)
def test_an_adapter_of_something_else_is_refused(
    file: Path, adapter: AdapterConfig, base: Base, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_adapter(CustomVideoX(init_tiny_base(0, SMALL), adapter), file, base)


def test_an_adapter_of_another_size_is_refused(file: Path) -> None:
    wide = init_tiny_base(0, replace(SMALL, num_attention_heads=2))
    deep = init_tiny_base(0, replace(SMALL, num_layers=3))
    for base in (wide, deep):
        with pytest.raises(ModelError, match="base of another size"):
            load_adapter(CustomVideoX(base, ADAPTER), file, BASE)


def test_what_the_weights_do_not_know_may_change_after_training(file: Path) -> None:
    switches = {"tab": TabConfig(sample=False), "erae": EraeConfig(form="product")}
    adapter = replace(ADAPTER, **switches, backend="merged")
    load_adapter(CustomVideoX(init_tiny_base(0, SMALL), adapter), file, BASE)


def test_a_foreign_or_broken_file_is_refused(tmp_path: Path) -> None:
    foreign, broken = tmp_path / "foreign.safetensors", tmp_path / "broken.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    broken.write_bytes(b"torn")
    with pytest.raises(ModelError, match="no CustomVideoX header"):
        read_header(foreign)
    for path in (broken, tmp_path / "missing.safetensors"):
        with pytest.raises(ModelError, match="cannot be read"):
            read_header(path)


def test_a_base_alone_has_no_adapter_file(tmp_path: Path, file: Path) -> None:
    alone = CustomVideoX(CogVideoXTransformer3DModel(**SMALL.keywords()))
    with pytest.raises(ModelError, match="no adapter"):
        save_adapter(alone, tmp_path / "x.safetensors", BASE)
    with pytest.raises(ModelError, match="no adapter"):
        load_adapter(alone, file, BASE)
