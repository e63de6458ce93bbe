"""The whole way on every device that this machine has: base training, training on episodes, resume, test."""

import json

import pytest
import torch

from fss.cli import main
from tests.make import TINY, make_folder

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", ["cwt", "asgnet"])
@pytest.mark.parametrize("device", DEVICES)
def test_trains_and_tests(tmp_path, device, head, precision):
    tiny = [s for s in TINY if not s.startswith(("device=", "precision=", "head."))]
    own = ["head.steps=10"] if head == "cwt" else ["head.sizes=[7,4,2,1]", "head.cells=4", "network=base"]
    where = [f"data.root={make_folder(tmp_path / 'set')}", f"output={tmp_path / 'out'}"]
    more = [*tiny, *own, f"device={device}", f"precision={precision}", "train.augment=none"]
    arguments = ["--data", "folder", "--head", head, *where, *more]
    assert main(["train", *arguments]) == 0
    (path,) = (tmp_path / "out").rglob("result.json")
    first = json.loads(path.read_text())
    assert first["precision"] == precision and first["scores"]["episodes_run"] == 12
    path.unlink()
    assert main(["test", *arguments]) == 0  # from the checkpoint alone
    assert json.loads(path.read_text())["scores"] == first["scores"]
