"""Feature clustering as one would write it down, in float32 with autograd: `fss.weak` is held against it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.episode import IGNORE
from fss.scribbles.clustering import Clustering, Network
from fss.scribbles.objective import Weights


def losses(response: Tensor, scribble: Tensor | None) -> Tensor:
    """Similarity, continuity and scribble loss (3,) of a response map (1,q,H,W); scribble (H,W) or None."""
    q = response.shape[1]
    flat = response[0].permute(1, 2, 0).reshape(-1, q)  # (HW,q)
    labels = flat.argmax(1)
    down = (response[:, :, 1:] - response[:, :, :-1]).abs().mean()
    across = (response[..., 1:] - response[..., :-1]).abs().mean()
    if scribble is None:
        return torch.stack([F.cross_entropy(flat, labels), down + across, flat.new_zeros(())])
    marks = scribble.reshape(-1).long()
    free = marks == IGNORE
    own, given = F.cross_entropy(flat[free], labels[free]), F.cross_entropy(flat[~free], marks[~free])
    return torch.stack([own, down + across, given])


class Plain:
    """The published loop: one `step` at a time on one image (1,3,H,W) of 0..1."""

    def __init__(self, settings: Clustering, seed: int) -> None:
        start = Network(settings.channels, settings.blocks, seed)
        parts: list[nn.Module] = []
        for conv, norm in start.layers:
            last = conv is start.layers[-1][0]
            parts += [conv, norm] if last else [conv, nn.ReLU(), norm]
        self.network = nn.Sequential(*parts)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum)
        self.weights = torch.tensor(Weights(settings.similarity, settings.continuity, settings.scribble))

    def step(self, image: Tensor, scribble: Tensor | None) -> Tensor:
        """One update; the losses (3,) before it."""
        self.optimizer.zero_grad()
        found = losses(self.network(image), scribble)
        (found * self.weights).sum().backward()
        self.optimizer.step()
        return found.detach()
