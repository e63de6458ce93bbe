"""Every head and backbone on this machine's GPU: `python studies/check_gpu.py OUT.json [--dry-run]`

One table, of every head at its published size on ResNet-50, and of backbones at 321 px: how far float32
on the GPU is from float32 on the CPU, where nothing is folded; memory; episodes and images a second, the
frozen network in bfloat16; and what share of the card's own rate of convolution encoding an image comes
to. That rate is measured here, on a 3x3 convolution of 512 channels. Weights are random; medians of five
calls, after one to warm up.

With --dry-run all of it happens on the CPU, at 97 px and once: it shows that the check itself works, and that
folded networks answer as stored ones do.
"""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fss.backbones import make_backbone
from fss.backbones.base import nearest_size
from fss.bars import Bar
from fss.bench.cases import METHODS, Setting, build, cached, episode, few_shot
from fss.bench.memory import peak
from fss.bench.run import timed
from fss.model import FewShotModel, build_model
from fss.ops import to_rgb
from fss.randomness import seeded
from fss.runs.folders import environment
from fss.runs.precision import wants_half
from fss.writing import write_text

CPU = torch.device("cpu")
BACKBONES = (
    "resnet18", "resnet50", "resnet101", "efficientnet_lite0", "timm:convnext_tiny",
    "timm:mobilenetv3_large_100", "timm:vit_small_patch14_reg4_dinov2", "timm:vit_small_patch16_dinov3",
)  # fmt: skip
SIZE, DRY_SIZE = 321, 97
AT_ONCE = 8  # episodes of a call with images cached, and images of one of the backbone
TOLERANCE = 0.01  # of float32 between devices, of untrained networks
HEADS = [
    "", "from the CPU's", "test, GiB", "step, GiB", "episodes/s", "images cached", "steps/s", "images/s",
    "of its rate",
]  # fmt: skip
Row = dict[str, float]


class Machine(NamedTuple):
    """What is checked.

    Attributes:
        runs: calls that are timed.
        size: S of all cases, pixels; None for that of each method's publication.
        rate: of convolution, FLOP/s.
    """

    device: torch.device
    half: bool
    runs: int
    size: int | None
    rate: float = 1

    @property
    def fast(self) -> Setting:
        """What is timed."""
        return Setting(self.size, "resnet50", self.device, self.half)

    @property
    def exact(self) -> Setting:
        """What is compared."""
        return self.fast._replace(half=False)

    def seconds(self, call: Callable[[], object]) -> float:
        """Median of `runs` calls, after one to warm up."""
        call()
        return median(timed(call, self.fast) for _ in range(self.runs))


def convolution_rate(machine: Machine) -> float:
    """FLOP/s of a 3x3 convolution of 512 channels on 8 maps of 64 x 64 (a dry run: 16 x 16)."""
    side, number = (64, torch.bfloat16 if machine.half else torch.float32)
    side = side if machine.size is None else 16
    layer = nn.Conv2d(512, 512, 3, padding=1).to(machine.device, number, memory_format=torch.channels_last)
    x = torch.randn(8, 512, side, side, device=machine.device, dtype=number)
    x = x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        return flops(lambda: layer(x)) / machine.seconds(lambda: layer(x))


def flops(call: Callable[[], object]) -> float:
    """Floating point operations of convolutions and products of matrices."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def difference(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs||."""
    ours, theirs = ours.cpu().double(), theirs.cpu().double()
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def reference(model: FewShotModel) -> FewShotModel:
    """The model on the CPU, its network computed as it is stored: nothing folded."""
    model.as_stored = True
    return model.to(CPU)


def settled(model: FewShotModel) -> FewShotModel:
    """A neck's map of the size that training gives it; on that of random weights, ten times as large, CWT's
    inner loop is chaos."""
    if model.neck is not None:
        for tensor in (model.neck.bottleneck[1].weight, model.neck.bottleneck[1].bias):
            tensor.data /= 50
    return model.eval()


@torch.no_grad()
def encoding(model: FewShotModel, images: Tensor, machine: Machine) -> Row:
    """Images a second, and the share of the rate."""
    call = lambda: model.encode(images)  # noqa: E731
    per_second = len(images) / machine.seconds(call)
    return {"images": per_second, "share": flops(call) / len(images) * per_second / machine.rate}


def head_row(head: str, machine: Machine) -> Row:
    """A head's numbers."""
    e = episode(machine.exact, head, 1, 1)
    with torch.no_grad():
        ours = settled(build(machine.exact, head)).output(e, [0]).logits
        theirs = reference(settled(build(machine.exact, head))).output(e.to(CPU), [0]).logits
        own = build(machine.fast, head).eval()
    test, with_images = few_shot(machine.fast, head, False, 1).ours, cached(machine.fast, head, AT_ONCE).ours
    row = {
        "difference": difference(ours, theirs), "test_gib": peak(test, machine.device),
        "episodes": 1 / machine.seconds(test), "cached_episodes": AT_ONCE / machine.seconds(with_images),
        **encoding(own, episode(machine.fast, head, 1, 1).query_image, machine),
    }  # fmt: skip
    if METHODS[head].learns:
        step = few_shot(machine.fast, head, True, 1).ours
        row |= {"step_gib": peak(step, machine.device), "steps": 1 / machine.seconds(step)}
    return row


def backbone_row(name: str, machine: Machine) -> Row:
    """A backbone's numbers."""

    def model_of(half: bool) -> FewShotModel:
        with seeded(0):
            levels = ["stage3"] if "vit" in name else ["stage2", "stage3", "stage4"]
            model = build_model("votes", {"level": levels}, make_backbone(name, "random", {}), None, half)
        return model.eval().to(machine.device).to(memory_format=torch.channels_last)

    exact = model_of(False)
    size = nearest_size(exact.backbone, machine.size or SIZE)
    pixels = torch.randn(AT_ONCE, 3, size, size, generator=torch.Generator().manual_seed(1))
    images = to_rgb(pixels).to(machine.device)
    with torch.no_grad():
        ours = torch.cat([x.flatten() for x in exact.encode(images[:1]).values()])
        theirs = reference(exact).encode(images[:1].cpu()).values()
    model = model_of(machine.half)
    return {
        "difference": difference(ours, torch.cat([x.flatten() for x in theirs])),
        "test_gib": peak(lambda: model.encode(images), machine.device),
        **encoding(model, images, machine),
    }


def line(title: str, row: Row) -> str:
    """A row of the table."""
    keys = ("test_gib", "step_gib", "episodes", "cached_episodes", "steps", "images")
    cells = [f"{row[key]:.3g}" if key in row else "" for key in keys]
    every = [title, f"{row['difference']:.0e}", *cells, f"{row['share']:.0%}"]
    return f"| {' | '.join(every)} |"


def table(report: dict[str, Any]) -> str:
    """All rows, with what they were measured on above."""
    about = report["environment"]
    where = f"{about['device']}, PyTorch {about['torch']}, frozen networks in {report['numbers']}"
    top = [f"{where}; convolutions at {report['rate'] / 1e12:.3g} TFLOP/s", ""]
    top += [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    return "\n".join([*top, *(line(title, row) for title, row in report["rows"].items())])


def main() -> int:
    """Measure, write, print; 1 where a device's answers differ from the CPU's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, small and once")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("no CUDA here; --dry-run shows on the CPU that the check works")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 is meant
    device = CPU if options.dry_run else torch.device("cuda", 0)
    size, runs = (DRY_SIZE, 1) if options.dry_run else (None, 5)
    machine = Machine(device, wants_half("auto", device), runs, size)
    machine = machine._replace(rate=convolution_rate(machine))
    rows = {}
    with seeded(0):
        for head in Bar(list(METHODS), "heads", leave=False):
            rows[METHODS[head].title] = head_row(head, machine)
        for name in Bar(BACKBONES, "backbones", leave=False):
            rows[name.removeprefix("timm:")] = backbone_row(name, machine)
    report = {
        "date": date.today().isoformat(), "numbers": "bfloat16" if machine.half else "float32",
        "size": size, "rate": machine.rate, "rows": rows, "environment": environment(device),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps(report, indent=1) + "\n")
    print(table(report))
    far = [title for title, row in rows.items() if not row["difference"] < TOLERANCE]
    if far:
        print(f"\nfurther than {TOLERANCE:.0%} from the CPU's answers: {', '.join(far)}", file=sys.stderr)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
