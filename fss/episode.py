"""The one datum: an episode, or a batch of them.

Letters, everywhere in the project: B episodes, K shots, C channels, H W pixels, h w feature cells,
N prototypes or classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

IGNORE = 255  # the label of pixels that count for nothing


@dataclass
class Episode:
    """A batch of B episodes.

    Attributes:
        query_image: (B,3,H,W) normalised float, as evaluation gives them (`fss.to_rgb` goes back to 0..255),
            or bytes 0..255, as the loaders of training send them; our models take both.
        query_mask: (B,H,W) 0 background, 1 foreground, 255 ignored; None when predicting.
        support_images: (B,K,3,H,W) likewise.
        support_masks: (B,K,H,W) as query_mask.
        class_id: (B,) class labels of the data set.
        extras: tensors (B,...) that the head's `prepare` made.
        meta: image names and the like; never moved to a device.
    """

    query_image: Tensor
    query_mask: Tensor | None
    support_images: Tensor
    support_masks: Tensor
    class_id: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Episode":
        """The same episode with its tensors on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in values.items()
        }
        moved["extras"] = {k: v.to(device, non_blocking=True) for k, v in self.extras.items()}
        return Episode(**moved)


def collate(episodes: Sequence[Episode]) -> Episode:
    """Concatenate episodes along B. All must have the same K, H, W and extras."""
    first = episodes[0]
    join = lambda name: torch.cat([getattr(e, name) for e in episodes])  # noqa: E731
    return Episode(
        query_image=join("query_image"),
        query_mask=None if first.query_mask is None else join("query_mask"),
        support_images=join("support_images"),
        support_masks=join("support_masks"),
        class_id=join("class_id"),
        extras={k: torch.cat([e.extras[k] for e in episodes]) for k in first.extras},
        meta={k: [x for e in episodes for x in e.meta[k]] for k in first.meta},
    )
