"""The one datum: an episode, or a batch of them.

Letters, everywhere in the project: B episodes, K shots, C channels, H W pixels, h w feature cells,
N prototypes or classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

IGNORE = 255  # the label of pixels that count for nothing


@dataclass
class Episode:
    """A batch of B episodes.

    Attributes:
        query_image: (B,3,H,W) RGB of 0..255, bytes or floats. (`fss.evaluate` hands a model of anyone's
            normalised floats, as 0.1 did; `fss.to_rgb` goes back.)
        query_mask: (B,H,W) 0 background, 1 foreground, 255 ignored; None when predicting.
        support_images: (B,K,3,H,W) likewise.
        support_masks: (B,K,H,W) as query_mask.
        class_id: (B,) class labels of the data set.
        photo: (B,H,W) bool, where the query's canvas holds its photo; None for everywhere.
        base_class: (B,) which of the base classes it is, from 0; -1 for a novel one. None if nobody knows.
        meta: image names and the like; never moved to a device.
    """

    query_image: Tensor
    query_mask: Tensor | None
    support_images: Tensor
    support_masks: Tensor
    class_id: Tensor
    photo: Tensor | None = None
    base_class: Tensor | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Episode":
        """The same episode with its tensors on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in values.items()
        }
        return Episode(**moved)


def collate(episodes: Sequence[Episode]) -> Episode:
    """Concatenate episodes along B. All must have the same K, H, W, and the same fields set."""
    first = episodes[0]
    values: dict[str, Any] = {f.name: [getattr(e, f.name) for e in episodes] for f in fields(first)}
    joined = {k: torch.cat(v) for k, v in values.items() if isinstance(v[0], Tensor)}
    meta = {k: [x for e in episodes for x in e.meta[k]] for k in first.meta}
    return replace(first, **joined, meta=meta)
