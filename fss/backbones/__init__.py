"""Backbones by name: ours, timm's as `timm:NAME`, or one of your own, `my_pkg.my_file:MyBackbone`."""

from collections.abc import Mapping
from typing import Any

from fss.backbones.base import Backbone
from fss.errors import UserError
from fss.parts import Kind, check_methods

BACKBONES = {
    "resnet18": "fss.backbones.resnet:ResNet18",
    "resnet34": "fss.backbones.resnet:ResNet34",
    "resnet50": "fss.backbones.resnet:ResNet50",
    "resnet101": "fss.backbones.resnet:ResNet101",
    "efficientnet_lite0": "fss.backbones.efficientnet:EfficientNetLite0",
}
KIND = Kind("backbone", BACKBONES, Backbone, prefixes={"timm": "fss.backbones.timm:Timm"})

__all__ = ["BACKBONES", "KIND", "Backbone", "make_backbone"]


def make_backbone(name: str, weights: str | None, options: Mapping[str, Any]) -> Backbone:
    """A backbone by its name in `BACKBONES`, as `timm:NAME`, or by its import path.

    Args:
        weights: as of `Backbone.with_weights`; None leaves the network untouched, for a checkpoint to fill.
        options: keyword arguments of its constructor.

    Raises:
        UserError: an unknown name or option; weights are missing or do not fit.
    """
    found: Any = KIND.find(name)
    called = KIND.called(name, found)
    check_methods(KIND, name, {"forward": 3})
    if weights is None:
        backbone = KIND.make(name, options)
    else:
        backbone = KIND.make(name, options, make=_loader(found, weights))
    lacking = [a for a in ("channels", "strides") if not isinstance(getattr(backbone, a, None), Mapping)]
    if lacking:
        raise UserError(f"{called}: __init__ must set self.{lacking[0]}, a mapping of level -> number")
    return backbone


def _loader(found: type[Backbone], weights: str) -> Any:
    return lambda *family, **options: found.with_weights(weights, *family, **options)


def weights_there() -> list[tuple[str, str]]:
    """Each name of `BACKBONES`, and where the weights lie that "auto" takes; "" if there are none."""
    from fss.backbones.efficientnet import packaged
    from fss.backbones.weights import find_weights

    found = []
    for name in BACKBONES:
        layers = name.removeprefix("resnet")
        try:
            where = find_weights("auto", int(layers), "auto") if layers.isdigit() else packaged()
        except UserError:
            where = None
        found.append((name, str(where or "")))
    return found
