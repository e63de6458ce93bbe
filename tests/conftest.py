"""Shared by all tests: the fixtures folder and a relative error."""

from pathlib import Path

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def fixture_numbers():
    """Load `tests/fixtures/NAME.npz` as a dict of arrays."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as archive:
            return dict(archive)

    return load


def relative_error(a, b) -> float:
    """||a - b|| / ||b||."""
    a, b = torch.as_tensor(a).double().cpu(), torch.as_tensor(b).double().cpu()
    return float((a - b).norm() / b.norm())
