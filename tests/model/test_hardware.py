"""Names of GPUs, as drivers and people write them."""

import pytest
import torch

from model.hardware import gpu, measured_peak, peak


@pytest.mark.parametrize(
    ("name", "tera", "gigabytes"),
    [
        ("NVIDIA A100-SXM4-80GB", 312, 80),
        ("NVIDIA A100-PCIE-40GB", 312, 40),
        ("NVIDIA H100 80GB HBM3", 989, 80),
        ("NVIDIA H100 PCIe", 756, 80),
        ("NVIDIA GeForce RTX 4090", 165, 24),
        ("NVIDIA RTX 6000 Ada Generation", 364, 48),
        ("NVIDIA L40S", 362, 48),
        ("NVIDIA L4", 121, 24),
        ("h200", 989, 141),
        ("H100 80 GB", 989, 80),
        ("24 GB", 0, 24),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, tera: float, gigabytes: int) -> None:
    found = gpu(name)
    assert found is not None
    assert (found.peak, found.memory) == (tera * 1e12, gigabytes * 1e9)


@pytest.mark.parametrize("name", ["", "GeForce 256", "a1000"])
def test_one_that_is_not_known_is_not_guessed(name: str) -> None:
    assert gpu(name) is None


def test_a_cpu_s_peak_is_measured() -> None:
    cpu = torch.device("cpu")
    assert peak(cpu, torch.float32) == measured_peak(cpu, torch.float32) > 1e8
