"""Embeddings against transformers' own calls; where an entity stands among the tokens."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5EncoderModel

from model.errors import ModelError
from model.text import TextEncoder, build_tiny

CAPTIONS = [
    "A red toy frog hops across a wooden table, slowly.",
    "The toy frog looks at the dog. The dog looks at the frog.",
    "A blue teapot turns around before a café, then rolls over the carpet.",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(str(folder), CAPTIONS)
    return folder


@pytest.fixture(scope="module")
def text(tiny: Path) -> TextEncoder:
    return TextEncoder(str(tiny), max_tokens=32)


def _pieces(tiny: Path, prompt: str, numbers: list[int]) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(tiny / "tokenizer")
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt).input_ids)
    return [tokens[number] for number in numbers]


def test_embeddings_are_those_of_transformers_padded_and_unmasked(tiny: Path):
    prompts = ["", CAPTIONS[0], "A red toy frog. " * 40]
    tokenizer = AutoTokenizer.from_pretrained(tiny / "tokenizer")
    encoder = T5EncoderModel.from_pretrained(tiny / "text_encoder")
    ids = [tokenizer(prompt).input_ids for prompt in prompts]
    ids = [row if len(row) <= 226 else [*row[:225], 1] for row in ids]  # 1 ends a text
    padded = torch.tensor([row + [0] * (226 - len(row)) for row in ids])
    with torch.no_grad():
        wanted = encoder(padded).last_hidden_state
    embeddings = TextEncoder(str(tiny)).encode(prompts)
    assert embeddings.shape == (3, 226, 64)
    assert torch.equal(embeddings, wanted)


def test_a_prompt_has_the_same_embedding_beside_others(text: TextEncoder):
    both = text.encode(CAPTIONS[:2])
    torch.testing.assert_close(both[1:], text.encode(CAPTIONS[1:2]), atol=1e-6, rtol=1e-6)


def test_captions_in_any_order_make_the_same_encoder(tmp_path: Path, tiny: Path):
    torch.manual_seed(5)
    build_tiny(str(tmp_path / "same"), reversed(CAPTIONS))
    build_tiny(str(tmp_path / "other"), CAPTIONS, seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))  # building leaves the caller's randomness alone
    first = TextEncoder(str(tiny)).fingerprint()
    assert TextEncoder(str(tmp_path / "same")).fingerprint() == first
    assert TextEncoder(str(tmp_path / "other")).fingerprint() != first


def test_length_and_precision_change_the_fingerprint(tiny: Path, text: TextEncoder):
    half = TextEncoder(str(tiny), max_tokens=32, dtype=torch.bfloat16)
    assert half.encode(["A dog"]).dtype == torch.bfloat16
    fingerprints = {text.fingerprint(), half.fingerprint(), TextEncoder(str(tiny)).fingerprint()}
    assert len(fingerprints) == 3


@pytest.mark.parametrize(
    ("prompt", "entity", "pieces"),
    [
        ("A red dog hops.", "dog", ["▁dog"]),
        ("A red toy frog hops.", "toy frog", ["▁toy", "▁frog"]),
        ("The frog looks at the dog. A frog hops.", "frog", ["▁frog", "▁frog"]),
        ("A newt hops.", "newt", ["▁", "n", "e", "w", "t"]),
        ("A TOY  Frog hops, the toy\nfrog rolls.", "Toy Frog", [*"▁TOY▁Frog", "▁toy", "▁frog"]),
        ("The frog's table", "frog", ["▁frog"]),
        ("A teapot-red table", "red table", ["r", "e", "d", "▁table"]),
        ("A café 日本 turns", "café 日本", ["▁café", "▁", "<unk>"]),
        ("A dog (red) hops", "(red)", ["▁", "(", "r", "e", "d", ")"]),
    ],
)
def test_an_entity_is_all_its_tokens_wherever_it_stands(
    tiny: Path, text: TextEncoder, prompt: str, entity: str, pieces: list[str]
):
    assert _pieces(tiny, prompt, text.spans(prompt, entity)) == pieces


@pytest.mark.parametrize("entity", ["newt", "fro", "og", "toy dog", "", " "])
def test_an_entity_that_the_prompt_lacks_is_named(text: TextEncoder, entity: str):
    with pytest.raises(ModelError, match=rf"found no '{entity.strip()}' .* 'A toy frog hops\.'"):
        text.spans("A toy frog\nhops. ", entity)


def test_an_entity_behind_the_last_token_is_cut_off(tiny: Path, text: TextEncoder):
    before = "A " * 29
    assert text.spans(before + "toy frog", "toy frog") == [29, 30]  # and the end of the text
    with pytest.raises(ModelError, match=r"'toy frog' is cut off: the first 32 tokens .* 'A A A"):
        text.spans(before + "A toy frog", "toy frog")
    with pytest.raises(ModelError, match="is cut off"):
        text.spans(before + "A A A toy frog", "toy frog")
    assert text.spans("The frog " + before + "frog", "frog") == [1]


def test_cogvideox_reads_226_tokens(tiny: Path):
    text = TextEncoder(str(tiny))
    assert text.spans("A " * 224 + "frog", "frog") == [224]  # the 226th ends the text
    with pytest.raises(ModelError, match="is cut off: the first 226 tokens"):
        text.spans("A " * 225 + "frog", "frog")


def test_a_folder_of_t5_alone_loads_too(tiny: Path, tmp_path: Path, text: TextEncoder):
    shutil.copytree(tiny / "tokenizer", tmp_path, dirs_exist_ok=True)
    shutil.copytree(tiny / "text_encoder", tmp_path, dirs_exist_ok=True)
    assert TextEncoder(str(tmp_path), max_tokens=32).fingerprint() == text.fingerprint()


def test_the_hub_s_kind_of_tokenizer_is_read_as_by_sentencepiece(tiny: Path, tmp_path: Path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer").mkdir()
    corpus = tmp_path / "captions.txt"
    corpus.write_text("\n".join(CAPTIONS * 20), encoding="utf-8")
    model = tmp_path / "tokenizer" / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        f"--input={corpus} --model_prefix={model} --vocab_size=100 --hard_vocab_limit=false "
        "--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1 --minloglevel=2"
    )
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text('{"extra_ids": 0}')
    shutil.copytree(tiny / "text_encoder", tmp_path / "text_encoder")
    oracle = sentencepiece.SentencePieceProcessor(model_file=f"{model}.model")
    prompt = "The ﬁrst  toy frog turns,\nthe Toy Frog hops."
    pieces = oracle.encode(prompt, out_type=str)
    numbers = TextEncoder(str(tmp_path)).spans(prompt, "toy frog")
    spelt = "".join(pieces[number] for number in numbers)
    assert spelt == "▁toy▁frog▁Toy▁Frog"


def test_what_is_no_t5_is_refused(tiny: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"found no T5 encoder .*nowhere'"):
        TextEncoder(str(tmp_path / "nowhere"))
    shutil.copytree(tiny / "text_encoder", tmp_path / "text_encoder")
    with pytest.raises(ModelError, match="found no T5 encoder with its tokenizer"):
        TextEncoder(str(tmp_path))
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    file = tmp_path / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    del weights["encoder.final_layer_norm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="found no T5 encoder with its tokenizer"):
        TextEncoder(str(tmp_path))
