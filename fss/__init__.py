"""fss: few-shot segmentation, one backbone, one protocol, many heads."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fss.errors import UserError

if TYPE_CHECKING:
    from fss.engine.annotations import Support
    from fss.engine.predict import Predictor
    from fss.engine.trained import load_model

__version__ = "0.1.0"
__all__ = ["Predictor", "Support", "UserError", "load_model"]

# Imported when they are first asked for, so that `import fss` stays quick.
_LAZY = {
    "Predictor": "fss.engine.predict",
    "Support": "fss.engine.annotations",
    "load_model": "fss.engine.trained",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fss' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
