"""A neck of one's own: stage 4 is enlarged onto stage 2, and a few convolutions look at both."""

from itertools import pairwise

from torch import cat, nn

from fss.necks import Decoded, Neck
from fss.ops import resize


class MyNeck(Neck):
    """Two maps side by side.

    Args:
        inputs: channels of the backbone's stages, by name.
        channels: of the map that it makes.
        layers: 3x3 convolutions.
    """

    levels = ("stage2", "stage4")  # feature maps wanted: stage1 .. stage4

    def __init__(self, inputs, channels: int = 64, layers: int = 2) -> None:
        super().__init__(inputs, channels)
        widths = [inputs["stage2"] + inputs["stage4"]] + [channels] * layers
        steps = []
        for before, after in pairwise(widths):
            steps += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*steps)

    def decode(self, features):
        """{level: (B,C,h,w)} -> the map (B,channels,h,w), no auxiliary maps, no offsets to draw."""
        coarse = resize(features["stage4"], features["stage2"].shape[-2:])
        return Decoded(self.convolutions(cat([features["stage2"], coarse], 1)), {}, {})
