"""A backbone of one's own: four stages of plain convolutions, small enough to learn from scratch."""

from torch import nn

from fss.backbones import Backbone


class MyBackbone(Backbone):
    """Each stage halves the map and doubles the channels.

    Args:
        width: channels of stage 1.
        norm: a batch norm behind each convolution.
    """

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # of RGB in 0..1, as the network was trained with

    def __init__(self, width: int = 32, norm: bool = True) -> None:
        super().__init__()
        self.channels = {f"stage{i}": width * 2 ** (i - 1) for i in (1, 2, 3, 4)}  # level -> C
        self.strides = {f"stage{i}": 2 ** (i + 1) for i in (1, 2, 3, 4)}  # level -> pixels: 4, 8, 16, 32
        self.stem = _halve(3, width, norm)
        self.stages = nn.ModuleDict()
        inputs = width
        for stage, outputs in self.channels.items():
            self.stages[stage] = _halve(inputs, outputs, norm)
            inputs = outputs

    def forward(self, images, levels=("stage4",)):
        """RGB of 0..255 (B,3,H,W) -> {level: (B,C,h,w)}; nothing deeper is computed."""
        x, out = self.stem(self.pixels(images)), {}
        for stage, layers in self.stages.items():
            x = layers(x)
            if stage in levels:
                out[stage] = x
            if len(out) == len(levels):
                break
        return out


def _halve(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.ReLU())
