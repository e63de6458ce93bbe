"""Score models that know nothing of this framework, on its episodes, and put them into one table.

    python examples/score_your_model.py                                # shapes, fold 0, weights at random
    python examples/score_your_model.py pascal data.root=voc --weights download --shots 5
    fss report results/external results/pascal/fold0                   # beside heads of the framework

Two models: everything is foreground, and a segmentation network of torchvision's whose class that fits the
support mask best is looked for in the query.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3_MobileNet_V3_Large_Weights, deeplabv3_mobilenet_v3_large

import fss


def all_foreground(episode: fss.Episode) -> Tensor:
    """Logits (B,2,1,1): they may have any size."""
    return torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(len(episode.query_image), 2, 1, 1)


class BestClass(nn.Module):
    """A network of fixed classes; that which overlaps the support mask most is what the query is asked for.

    Args:
        network: images (B,3,H,W), normalised -> {"out": logits (B,classes,H,W)}, as torchvision has it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def forward(self, episode: fss.Episode) -> Tensor:
        """Episodes -> logits (B,2,H,W)."""
        device = next(self.parameters()).device
        episode = episode.to(device)
        supports, masks = episode.support_images.flatten(0, 1), episode.support_masks  # (BK,3,H,W), (B,K,H,W)
        shown = self.network(supports)["out"].softmax(1).unflatten(0, masks.shape[:2])  # (B,K,N,H,W)
        inside = (shown * (masks == 1)[:, :, None]).sum((1, 3, 4))  # (B,N)
        outside = (shown * (masks == 0)[:, :, None]).sum((1, 3, 4))
        overlap = inside / (outside + (masks == 1).sum((1, 2, 3))[:, None]).clamp(min=1)  # a soft IoU (B,N)
        best = overlap.argmax(1)  # (B,)
        query = self.network(episode.query_image)["out"]  # (B,N,H,W)
        own = F.one_hot(best, query.shape[1]).bool()[:, :, None, None]
        wanted = query.masked_fill(~own, -torch.inf).amax(1)  # (B,H,W)
        others = query.masked_fill(own, -torch.inf).amax(1)
        return torch.stack([others, wanted], 1)


def make_network(weights: str | None, seed: int = 0) -> nn.Module:
    """DeepLabV3 on MobileNetV3: at random, with torchvision's weights ("download"), or a file's."""
    torch.manual_seed(seed)
    if weights == "download":
        return deeplabv3_mobilenet_v3_large(weights=DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT)
    network = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=True)
    if weights:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network


def main(arguments: list[str] | None = None) -> list[fss.Score]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", nargs="?", default="shapes", help="configs/data/NAME.yaml, or a YAML file")
    add("settings", nargs="*", metavar="section.key=value", help="such as data.root=voc")
    add("--fold", type=int, default=0)
    add("--shots", type=int, default=1)
    add("--runs", type=int, default=2)
    add("--episodes", type=int, default=50)
    add(
        "--weights",
        metavar="FILE",
        help="download for torchvision's own, or a file with them (default: random)",
    )
    add("--device", default="cpu")
    add("--out", type=Path, default=Path("results/external"))
    given = parser.parse_intermixed_args(arguments)
    protocol = fss.load_protocol(
        given.data,
        *given.settings,
        fold=given.fold,
        shots=given.shots,
        runs=given.runs,
        episodes=given.episodes,
    )
    models = {
        "all foreground": all_foreground,
        "DeepLabV3": BestClass(make_network(given.weights).to(given.device)),
    }
    scores = []
    for name, model in models.items():
        score = fss.evaluate(model, protocol, name=name)
        path = score.save(given.out / f"{name.replace(' ', '_')}_fold{given.fold}_{given.shots}shot.json")
        print(f"{score}\n\nresult: {path}\n")
        scores.append(score)
    return scores


if __name__ == "__main__":
    main()
