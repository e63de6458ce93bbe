"""L2G: local-to-global knowledge transfer (Jiang et al., CVPR 2022, arXiv 2204.03206).

Labels of an image become places of its classes. A local network classifies crops; its responses, cut out by
saliency maps, are taught to a global network, which sees the whole image. Letters:
C classes without background; response maps have C + 1 channels, background last.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from fss.backbones.base import Backbone
from fss.l2g.correlation import PixelCorrelation

ON = 0.001  # a kept response above this is an object's


class ResponseNet(nn.Module):
    """A classification network whose last layer's maps say where it saw what.

    Args:
        classes: C; one channel more is the background's.
        correlation: adds maps that are spread over similar pixels.
        level: whose features are classified; deeper stages are not computed.
        frozen_norms: the first so many of stem and stages keep the statistics and scales of their norms.
    """

    def __init__(
        self, backbone: Backbone, classes: int, correlation: PixelCorrelation | None = None,
        frozen_norms: int = 0, level: str = "stage4",
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.correlation, self.level = backbone, correlation, level
        self.stride = backbone.strides[level]
        _without_the_unused(backbone, level)
        self.classifier = nn.Conv2d(backbone.channels[level], classes + 1, 1, bias=False)
        self.frozen_norms = frozen_norms
        for norm in self._fixed():
            norm.requires_grad_(False)

    def _fixed(self) -> list[nn.Module]:
        """Norms that stay as they are; looked up anew, because several GPUs put synced ones in."""
        parts = self.backbone.parts()[: self.frozen_norms] if self.frozen_norms else []
        kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
        return [m for part in parts for m in part.modules() if isinstance(m, kinds)]

    def train(self, mode: bool = True) -> "ResponseNet":
        """Switch all but the fixed norms."""
        super().train(mode)
        for norm in self._fixed():
            norm.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """RGB of 0..255 (B,3,H,W) -> response maps (B,C+1,h,w) float32, `stride` pixels a cell."""
        features = self.backbone(images, {self.level, *(PixelCorrelation.levels if self.correlation else ())})
        response = self.classifier(features[self.level]).float()
        if self.correlation:
            response = response + self.correlation(response, self.backbone.pixels(images), features)
        return response


def _without_the_unused(backbone: Backbone, level: str) -> None:
    """Switch off the gradients of layers behind `level`, which never see an image."""
    training, side = backbone.training, max(64, backbone.multiple)
    backbone.eval()
    backbone(torch.zeros(1, 3, side, side), (level,))[level].sum().backward()
    for parameter in backbone.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    backbone.zero_grad()
    backbone.train(training)


class L2G(nn.Module):
    """The two networks; without the local one, a classifier whose maps are plain class activation maps."""

    def __init__(self, network: ResponseNet, local: ResponseNet | None) -> None:
        super().__init__()
        self.network, self.local = network, local

    def forward(self, images: Tensor, crops: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Images (B,3,S,S) and crops (B*N,3,L,L) -> response maps of both; None without a local network."""
        return self.network(images), None if self.local is None else self.local(crops)


def image_logits(response: Tensor) -> Tensor:
    """Response maps (B,C+1,h,w) -> the image's class logits (B,C): their mean, without the background."""
    return response[:, :-1].mean((2, 3))


def classification_loss(response: Tensor, labels: Tensor) -> Tensor:
    """Multi-label soft-margin loss of response maps (B,C+1,h,w) against image labels (B,C) of 0 and 1."""
    return F.multilabel_soft_margin_loss(image_logits(response), labels)


def attention(response: Tensor, labels: Tensor) -> Tensor:
    """The local network's attention: in each pixel the value of one channel, 0 in all others.

    Negatives count as 0, each channel is divided by its maximum, classes that the image does not show are
    left out (the background always stays), and at each pixel only the largest channel keeps its value.

    Args:
        response: (N,C+1,h,w).
        labels: (N,C) of 0 and 1.

    Returns:
        (N,C+1,h,w) in 0..1.
    """
    scaled = response.clamp(min=0)
    scaled = scaled / (scaled.amax((2, 3), keepdim=True) + 1e-8)
    scaled = scaled * F.pad(labels, (0, 1), value=1.0)[:, :, None, None]
    largest = scaled.argmax(1, keepdim=True)
    return torch.zeros_like(scaled).scatter(1, largest, scaled.gather(1, largest))


def transfer_target(
    response: Tensor, labels: Tensor, saliency: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    """The global network's target: the local attention, in the shape that saliency gives it.

    Where a class is attended to (more than 0.001), the target is the saliency there; where the background is,
    what saliency leaves; elsewhere 0. Crops without a saliency map keep their attention.

    Args:
        response: of the local network, (N,C+1,h,w); no gradient reaches it.
        labels: (N,C) of 0 and 1.
        saliency: (N,1,H,W) in 0..1, of the crops; None where no crop has any.
        known: (N,) bool, which crops have saliency; None where all have.
    """
    kept = attention(response.detach(), labels)
    if saliency is None:
        return kept
    salient = F.interpolate(saliency, (response.shape[2], response.shape[3]), mode="nearest")  # (N,1,h,w)
    shape = torch.cat([salient.expand(-1, kept.shape[1] - 1, -1, -1), 1 - salient], 1)  # (N,C+1,h,w)
    shaped = (kept > ON) * shape
    return shaped if known is None else torch.where(known[:, None, None, None], shaped, kept)


def aligned_probability(response: Tensor, boxes: Tensor, size: tuple[int, int], stride: int = 8) -> Tensor:
    """The global response maps (B,C+1,h,w) at the crops' `boxes` (N,5), as probabilities (N,C+1,*size)."""
    return roi_align(response, boxes, size, spatial_scale=1 / stride, aligned=False).softmax(1)


def transfer_loss(response: Tensor, boxes: Tensor, target: Tensor, stride: int = 8) -> Tensor:
    """Mean squared error of the global network's probabilities at the boxes to the target (N,C+1,h,w)."""
    size = (target.shape[2], target.shape[3])
    return F.mse_loss(aligned_probability(response, boxes, size, stride), target)


def parameter_groups(model: nn.Module, factors: tuple[float, float, float, float]) -> list[dict]:
    """Parameters that learn, in groups whose "factor" multiplies the learning rate.

    Args:
        factors: of the backbones' weights and biases, then of all other layers' weights and biases.
    """
    groups: dict[float, list[nn.Parameter]] = {factors[0]: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = 2 * ("backbone." not in name) + name.endswith("bias")
            groups.setdefault(factors[kind], []).append(parameter)
    return [{"params": own, "factor": factor} for factor, own in groups.items() if own]
