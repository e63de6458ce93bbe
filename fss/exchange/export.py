"""A trained model as one file that runs without this framework: ONNX, or a program of torch.export.

The graph holds the frozen network as it is stored (nothing folded, nothing rearranged for a CPU), the
normalisation, and the head. Episodes (B = 1), shots and
size are fixed. The file is run against the model before it is written.
"""

import copy
import hashlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from fss.backbones.base import Backbone, check_size
from fss.config import HeadConfig
from fss.episode import IGNORE, Episode
from fss.errors import UserError
from fss.model import FewShotModel
from fss.necks import Neck
from fss.ops import resize
from fss.runs.folders import environment
from fss.runs.models import load_base_with, load_model
from fss.writing import write_bytes, write_text

# Shares of the largest logit, and of all pixels. Rounding gives 1e-6 and 1; a wrong operator is far outside.
TOLERANCE, EQUAL = 1e-3, 0.999
FORMATS = {".onnx": "onnx", ".pt2": "torch"}
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("query", "support_images", "support_masks")

M = TypeVar("M", bound=nn.Module)
Inputs = tuple[Tensor, Tensor, Tensor]  # query (1,3,S,S), supports (1,K,3,S,S), masks (1,K,S,S)
Run = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Check:
    """How far the file's answers are from the model's.

    Attributes:
        difference: the largest of any logit.
        relative: the same as a share of the largest logit of its episode.
        equal: share of pixels with the same answer, in the worst episode.
    """

    episodes: int
    difference: float
    relative: float
    equal: float


class Graph(nn.Module):
    """The module that is exported: images of 0..255 in, logits at image size out, B = 1.

    Args:
        seed: of the episode; what the head draws from it is a constant of the graph.
    """

    def __init__(self, model: FewShotModel, size: int, seed: int) -> None:
        super().__init__()
        self.model, self.size, self.seed = model, size, seed

    def forward(self, query: Tensor, support_images: Tensor, support_masks: Tensor) -> Tensor:
        """Query (1,3,S,S), supports (1,K,3,S,S), masks (1,K,S,S) -> logits (1,2,S,S), background first."""
        labels = torch.zeros(1, dtype=torch.int64)
        out = self.model.output(
            Episode(query, None, support_images, support_masks.long(), labels), [self.seed]
        )
        return resize(out.logits.float(), (self.size, self.size), self.model.corners)


def export(
    model: FewShotModel,
    out: Path,
    shots: int,
    size: int | None = None,
    kind: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `out`, and beside it `account_of(out)` with what it takes and what it is.

    Args:
        model: on the CPU, float32 (`fss.load_model`); is put into evaluation mode.
        shots: K.
        size: S, pixels; default: what its checkpoint was trained at.
        kind: "onnx" or "torch"; default: by the suffix of `out`.
        seed: of whatever is random in the head, as of `FewShotModel.forward`.

    Returns:
        the content of the JSON.

    Raises:
        UserError: a suffix, size or number of shots that is not allowed; ONNX is not installed; the head
            cannot be exported; the file would answer otherwise than the model. Nothing is written then.
    """
    kind, size = _checked(model, out, shots, size, kind)
    model.eval()
    episodes = [_episode(i, shots, size) for i in range(_EPISODES)]
    answers = [_answer(model, e, seed) for e in episodes]
    made = _trace(Graph(_needed(model), size, seed).eval(), episodes[0], kind)
    check = _compare(_runner(made, kind), episodes, answers)
    if not (check.relative <= TOLERANCE and check.equal >= EQUAL):
        raise UserError(
            f"{out} would not answer as the model does: logits differ by {check.relative:.1e} of the largest "
            f"(allowed: {TOLERANCE:.0e}), {100 * check.equal:.2f}% of the pixels are equal (wanted: "
            f"{100 * EQUAL}%); nothing is written"
        )
    told = _account(model, made, kind, shots, size, seed, check)
    write_bytes(out, made)
    write_text(account_of(out), json.dumps(told, indent=2) + "\n")
    return told


def account_of(out: Path) -> Path:
    """The path of an exported file's account, NAME.onnx.json."""
    return out.with_name(f"{out.name}.json")


def _needed(model: FewShotModel) -> FewShotModel:
    """A view of a model with the parts alone that its head asks for, computed as they are stored."""
    levels, view = set(model.head.levels), _view(model)
    view.as_stored = True
    on_neck = any(not level.startswith("stage") for level in levels)
    view.neck = model.neck if on_neck else None
    levels |= set(view.neck.levels) if isinstance(view.neck, Neck) else set()
    stages = sorted(level for level in levels if level.startswith("stage"))
    view.backbone = cast(Backbone, model.backbone).up_to(stages)
    return view


def _view(module: M) -> M:
    """A module that shares all parts with `module`, of which it may lose some."""
    view = copy.copy(module)
    view.__dict__["_modules"] = dict(module._modules)
    return view


def _checked(
    model: FewShotModel, out: Path, shots: int, size: int | None, kind: str | None
) -> tuple[str, int]:
    """The format and the size."""
    kind = kind or FORMATS.get(out.suffix, "")
    if kind not in FORMATS.values():
        raise UserError(f"{out}: allowed are names in {' and '.join(FORMATS)}, or --format onnx or torch")
    size = size if size is not None else model.told.get("size")
    if size is None:
        raise UserError("this model does not say at which size it was trained; give one with --size")
    check_size(cast(Backbone, model.backbone), size, "--size")
    if not 1 <= shots <= 100:
        raise UserError(f"--shots {shots}: allowed are 1 to 100")
    missing = [name for name in _NEEDED if kind == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX needs {', '.join(missing)}: pip install {' '.join(missing)}; or take --format torch"
        )
    return kind, size


@torch.no_grad()
def _trace(graph: Graph, example: Inputs, kind: str) -> bytes:
    """The file's content.

    Raises:
        UserError: an operation of the model's that the format has no counterpart for; names it.
    """
    head = type(graph.model.head).__name__
    with _quiet():
        try:
            program = torch.export.export(graph, example, strict=False)
            if kind == "torch":
                content = io.BytesIO()
                # A loop with in-place operations or autocast's contexts could not be saved.
                torch.export.save(program.run_decompositions({}), content)
                return content.getvalue()
            made = torch.onnx.export(
                program, example, dynamo=True, verbose=False,
                input_names=list(INPUTS), output_names=["logits"],
            )  # fmt: skip
            assert made is not None
            return bytes(made.model_proto.SerializeToString())
        except UserError:
            raise
        except Exception as error:  # PyTorch's exporters raise whatever they meet
            why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(
                f"{head} cannot be exported to {kind} with PyTorch {torch.__version__} "
                f"({type(error).__name__}: {why[:200]})"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which warn and log of their progress and of no concern of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _runner(content: bytes, kind: str) -> Run:
    """A function that runs a file's content, read back as a user would."""
    if kind == "torch":
        with _quiet():
            program = torch.export.load(io.BytesIO(content)).module()
        return lambda inputs: program(*inputs)
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class of their own
        raise UserError(f"ONNX Runtime {onnxruntime.__version__} cannot run the file: {error}") from error
    run = lambda inputs: session.run(None, {k: v.numpy() for k, v in zip(INPUTS, inputs, strict=True)})  # noqa: E731
    return lambda inputs: torch.from_numpy(run(inputs)[0])


_EPISODES = 4


def _episode(number: int, shots: int, size: int) -> Inputs:
    """An episode of noise at several scales, its objects ellipses.

    The first of all has large ones, the second small ones, with a border that is ignored; in the third the
    first support shows nothing but the object, in the fourth nothing of it.
    """
    random = np.random.default_rng([number, shots, size])
    cells = random.random((1 + shots, 3, 8, 8), np.float32)
    images = resize(torch.from_numpy(cells), (size, size)) * 200 + torch.from_numpy(
        random.random((1 + shots, 3, size, size), np.float32) * 55
    )
    y, x = np.mgrid[:size, :size] / (size - 1)
    masks = np.zeros((1, shots, size, size), np.uint8)
    for mask in masks[0]:
        (r, c), (a, b) = random.uniform(0.3, 0.7, 2), random.uniform(0.1, 0.2 if number == 1 else 0.4, 2)
        mask[((y - r) / a) ** 2 + ((x - c) / b) ** 2 < 1] = 1
    masks[..., : size // 8] = IGNORE if number == 1 else 0
    masks[0, 0] = {2: 1, 3: 0}.get(number, masks[0, 0])
    return images[:1], images[None, 1:], torch.from_numpy(masks)


@torch.no_grad()
def _answer(model: FewShotModel, inputs: Inputs, seed: int) -> Tensor:
    query, images, masks = inputs
    return model(query, images, masks.long(), seed)


@torch.no_grad()
def _compare(run: Run, episodes: list[Inputs], answers: list[Tensor]) -> Check:
    differences, relatives, equal = [], [], []
    for inputs, wanted in zip(episodes, answers, strict=True):
        got = run(inputs)
        if got.shape != wanted.shape or not got.isfinite().all():
            return Check(len(episodes), float("inf"), float("inf"), 0.0)
        differences.append(float((got - wanted).abs().max()))
        relatives.append(differences[-1] / max(float(wanted.abs().max()), 1e-12))
        equal.append(float((got.argmax(1) == wanted.argmax(1)).float().mean()))
    return Check(len(episodes), max(differences), max(relatives), min(equal))


def _account(
    model: FewShotModel, content: bytes, kind: str, shots: int, size: int, seed: int, check: Check
) -> dict[str, Any]:
    images = "RGB of 0..255, float32; the graph normalises"
    head = type(model.head)
    return {
        "format": kind,
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": {
            "query": {"shape": [1, 3, size, size], "type": "float32", "values": images},
            "support_images": {"shape": [1, shots, 3, size, size], "type": "float32", "values": images},
            "support_masks": {
                "shape": [1, shots, size, size], "type": "uint8",
                "values": "0 background, 1 object, 255 ignored",
            },
        },
        "output": {"logits": {"shape": [1, 2, size, size], "type": "float32", "values": "background first"}},
        "images": _IMAGES[model.told.get("resize", "pad")].format(size=size),
        "corners": model.corners,
        "head": f"{head.__module__}:{head.__qualname__}",
        "seed": seed,
        "check": asdict(check) | {"allowed": {"relative": TOLERANCE, "equal": EQUAL}},
        "checkpoint": model.told or None,
        "environment": environment(torch.device("cpu")),
    }  # fmt: skip


_IMAGES = {
    "pad": "longer side {size}, each side down to a multiple of 8, top left on black; masks on 255",
    "squash": "both sides {size}, by PIL's bilinear resize of bytes; masks nearest",
    "stretch": "both sides {size}, by OpenCV's bilinear resize; masks nearest",
}


def run_export(
    path: Path, out: Path, shots: int, size: int | None, kind: str | None, seed: int, head: HeadConfig | None
) -> None:
    """Write a checkpoint, or a base network with a head, as a file that runs without this framework."""
    if out.resolve() == path.resolve():
        raise UserError(f"{out} is the checkpoint itself; name another file to write")
    model = load_base_with(path, head) if head else load_model(path)
    told = export(model, out, shots, size, kind, seed)
    check, query = told["check"], told["inputs"]["query"]["shape"]
    print(
        f"{out}: {told['checkpoint']['head']['type']}, {shots} shot(s), {query[-1]} px, {told['format']}, "
        f"{out.stat().st_size / 1e6:.1f} MB\n"
        f"on {check['episodes']} episodes of noise: logits differ by {check['difference']:.1e} at most "
        f"({check['relative']:.1e} of the largest), {100 * check['equal']:.3f}% of the pixels are equal\n"
        f"inputs and outputs: {account_of(out)}"
    )
