"""The device of these tests: GENRET_GPU_TESTS names one (`cpu` rehearses), else the GPU if there is one."""

import os

import pytest
import torch

from bench.models import model
from genret.api import Vokens

VOKENS = Vokens((32,) * 3)
SMALL = {
    "t5-tiny": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    "llama-tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}


@pytest.fixture(scope="session")
def device() -> torch.device:
    named = os.environ.get("GENRET_GPU_TESTS") or ("cuda" if torch.cuda.is_available() else "")
    if not named:
        pytest.skip("torch sees no GPU; GENRET_GPU_TESTS=cpu rehearses without one")
    return torch.device(named)


@pytest.fixture(scope="session", autouse=True)
def exact():
    """No TF32 in products: float32 on both devices."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="session", params=["t5-tiny", "llama-tiny"])
def networks(request, device):
    """The same network twice: on the CPU, and on the device."""
    name = request.param
    return tuple(model(name, place, vokens=VOKENS, **SMALL[name]) for place in (torch.device("cpu"), device))
