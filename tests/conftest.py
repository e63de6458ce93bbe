"""Shared by all tests: the fixtures' numbers, a relative error, a browser."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parent / "fixtures"


def numbers_of(name: str) -> dict[str, np.ndarray]:
    """`tests/fixtures/NAME.npz` as a dict of arrays."""
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture
def fixture_numbers():
    """`numbers_of`, for tests that take it as an argument."""
    return numbers_of


def images(seed, *shape: int) -> torch.Tensor:
    """The random images of a fixture, by its seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(seed)))


def bits(packed: np.ndarray, width) -> torch.Tensor:
    """A fixture's masks, packed along their width, as 0 and 1."""
    return torch.from_numpy(np.unpackbits(packed, axis=-1)[..., : int(width)]).long()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium for pages that a user would open; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def relative_error(a, b) -> float:
    """||a - b|| / ||b||."""
    a, b = torch.as_tensor(a).double().cpu(), torch.as_tensor(b).double().cpu()
    return float((a - b).norm() / b.norm())
