import pytest
import torch

from training.speed import Work, memory


def test_speed_is_that_of_the_samples_and_the_share_that_of_the_peak():
    speed = Work(tokens=100, flops=2e12, peak=1e13).speed(samples=4, seconds=2.0)
    assert speed == {"samples_per_s": 2.0, "tokens_per_s": 200.0, "peak_share": 0.4}


def test_what_is_not_known_is_left_out():
    assert Work(flops=2e12).speed(4, 2.0) == {"samples_per_s": 2.0}


def test_memory_grows_with_what_is_held():
    before = memory(torch.device("cpu"))["memory_resident_gib"]
    held = torch.ones(2**26)  # 0.25 GiB, touched
    assert memory(torch.device("cpu"))["memory_resident_gib"] >= before + 0.24
    assert held.sum() == pytest.approx(2**26)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")
def test_memory_of_a_gpu_is_its_own():
    held = torch.ones(2**26, device="cuda")
    told = memory(held.device)
    assert told["memory_reserved_gib"] >= told["memory_allocated_gib"] >= 0.25
