"""fss: few-shot segmentation, one backbone, one protocol, many heads."""

import importlib
from typing import TYPE_CHECKING, Any

from fss.errors import UserError

if TYPE_CHECKING:
    from fss.episode import Episode
    from fss.model import FewShotModel
    from fss.ops import to_rgb
    from fss.photos.annotations import Support
    from fss.photos.predictor import Predictor
    from fss.runs.models import load_model
    from fss.testing.api import Protocol, Score, evaluate, load_protocol

__version__ = "0.2.0"
__all__ = [
    "Episode",
    "FewShotModel",
    "Predictor",
    "Protocol",
    "Score",
    "Support",
    "UserError",
    "evaluate",
    "load_model",
    "load_protocol",
    "to_rgb",
]

# Where each name is, so that `import fss` stays quick.
_LAZY = {
    "Episode": "fss.episode",
    "FewShotModel": "fss.model",
    "Predictor": "fss.photos.predictor",
    "Protocol": "fss.testing.api",
    "Score": "fss.testing.api",
    "Support": "fss.photos.annotations",
    "evaluate": "fss.testing.api",
    "load_model": "fss.runs.models",
    "load_protocol": "fss.testing.api",
    "to_rgb": "fss.ops",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fss' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
