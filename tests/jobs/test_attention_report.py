"""What is written beside a video about its attention."""

import io
import json

import numpy as np
import torch
from PIL import Image

from jobs.attention_report import MAPS, NUMBERS, files, sheet, told
from model.sampling import Saw, Step

GRID = (2, 8, 12)  # frames, rows, columns


def step(number: int, own: bool = False) -> Step:
    """A subject in the second row of the first frame; the other frame is flat."""
    activation = torch.zeros(1, 1, *GRID)
    activation[0, 0, 0, 1] = torch.linspace(0.1, 0.2, 12)
    region = (activation > 0.15).flatten(2)
    if own:
        region = torch.stack([region, torch.zeros_like(region)])
    weight = torch.tensor([[0.25], [0.5], [0.125]])
    return Step(number, 999 - number, Saw(weight, activation.flatten(2), region))


def test_the_numbers_are_a_row_per_step_and_a_number_per_layer() -> None:
    written = files([step(0), step(1)], GRID)
    numbers = json.loads(written[NUMBERS])
    assert numbers["timesteps"] == [999, 998]
    assert numbers["weight"] == [[0.25, 0.5, 0.125]] * 2
    assert numbers["covered"] == [6 / 192, 6 / 192]
    assert numbers["warnings"] == {}
    assert told(step(0)) == {
        "number": 0,
        "timestep": 999,
        "weight": 0.29167,
        "covered": 0.03125,
    }


def test_a_warning_names_its_step() -> None:
    saw = step(3).saw
    assert saw is not None
    absent = Step(3, 900, Saw(saw.weight, saw.activation, torch.zeros(1, 1, 192, dtype=torch.bool)))
    warnings = json.loads(files([step(0), absent], GRID)[NUMBERS])["warnings"]
    assert list(warnings) == ["3"]
    assert "may be absent" in warnings["3"]


def test_a_step_is_a_row_of_its_maps_and_then_of_its_regions() -> None:
    picture = np.asarray(Image.open(io.BytesIO(files([step(0), step(1)], GRID)[MAPS])))
    assert picture.shape == (2 * (8 * 4 + 4), 4 * (12 * 4 + 4))
    first, flat, inside, outside = np.split(picture[:36], 4, axis=1)
    assert first[6, 46] == 255
    assert 0 < first[6, 2] < 255  # 0.1 of 0.2
    assert not first[8:32, :48].any()
    assert not flat[:32, :48].any()
    assert [inside[6, 2], inside[6, 46], outside[6, 46]] == [0, 255, 0]


def test_where_layers_have_their_own_region_it_is_the_share_of_them() -> None:
    assert sheet([step(0, own=True)], GRID)[6, 2 * 52 + 46] == 128


def test_a_video_without_a_reference_has_nothing_beside_it() -> None:
    assert files([Step(0, 999, None)], GRID) == {}
    assert told(Step(0, 999, None)) == {"number": 0, "timestep": 999}


def test_without_an_entity_there_are_numbers_and_no_maps() -> None:
    weight_alone = Step(0, 999, Saw(torch.tensor([[0.25], [0.5]]), None, None))
    written = files([weight_alone], GRID)
    assert set(written) == {NUMBERS}
    assert json.loads(written[NUMBERS])["weight"] == [[0.25, 0.5]]
    assert told(weight_alone) == {"number": 0, "timestep": 999, "weight": 0.375}
