"""fss: few-shot segmentation, one backbone, one protocol, many heads."""

from pathlib import Path
from typing import TYPE_CHECKING

from fss.errors import UserError

if TYPE_CHECKING:
    from fss.model import FewShotModel

__version__ = "0.1.0"
__all__ = ["UserError", "load_model"]


def load_model(path: str | Path, device: str = "cpu", bf16: bool = False) -> "FewShotModel":
    """The few-shot model of a checkpoint, trained here or converted, in evaluation mode.

    `model(query, support_images, support_masks)` gives logits (B,2,H,W); see `fss.model.FewShotModel`.

    Args:
        bf16: compute the frozen part in bfloat16.

    Raises:
        UserError: no such file, not a checkpoint of stage 2, or one whose head cannot be imported.
    """
    from fss.engine.trained import load_model  # here, so that `import fss` stays quick

    return load_model(path, device, bf16)
