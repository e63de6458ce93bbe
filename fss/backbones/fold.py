"""A frozen network as it is computed: norms folded, one number format, fewer products."""

import copy
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fss.backbones.base import Backbone
from fss.backbones.winograd import Winograd, suits

Probe = Callable[[nn.Module], Any]
TOLERANCE = 1e-4  # relative, between the outputs of the folded and the unfolded network in float32
_SIDE = 65  # pixels, of the image on which the order of execution is observed


class Pair(NamedTuple):
    """A convolution and a norm, by their names in the network."""

    conv: str
    norm: str


def fold(module: nn.Module, dtype: torch.dtype, probe: Probe | None = None) -> nn.Module:
    """A copy for inference: each norm that is proved to follow a convolution becomes part of it.

    The proof is one run: the norm's input is the convolution's output, and nothing else reads that output.
    Convolutions that did not run as modules, and all of them where there is no run to look at, are folded
    inside a plain `nn.Sequential` alone, whose order is that of its children. A copy whose output on the same
    run is not equal is thrown away: the network is then computed unfolded, never wrongly.

    The arithmetic of folding is done in float32; weights are then rounded to `dtype` once, and laid out
    channels last. The original keeps its parameters, which checkpoints and checksums are about.
    A part with a `settle` method is told that its weights are final.

    Args:
        module: in evaluation mode.
        probe: runs the copy that it is given and returns all of its outputs, on the same inputs every time.
            Backbones need none: an image of noise and all of their levels serve.
    """
    plain = copy.deepcopy(module).float()
    folded = _folded(plain, probe or probe_of(module)) if any(map(_is_norm, plain.modules())) else plain
    folded = folded.to(dtype=dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    for part in list(folded.modules()):
        settle: Any = getattr(part, "settle", None)
        if settle:
            settle()
    return _with_fewer_products(folded)


def probe_of(module: nn.Module) -> Probe | None:
    """Noise that runs every level of a backbone; None for other modules, whose inputs nobody knows."""
    if not isinstance(module, Backbone):
        return None
    step, least = module.multiple, max(module.smallest, _SIDE)
    side = -(-least // step) * step
    image = 255 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))  # (1,3,H,W)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return lambda network: network(image.to(device), tuple(module.channels))


@torch.no_grad()
def _folded(plain: nn.Module, probe: Probe | None) -> nn.Module:
    """`plain`, or a copy of it with its norms folded."""
    order = _Order(plain)
    try:
        wanted = order.observe(probe) if probe else None
    except Exception:  # a user's network may not take this probe; it still runs on its own images
        probe = None
        order = _Order(plain)
    pairs = order.pairs()
    if not pairs:
        return plain
    if not probe:
        return _fuse(plain, pairs)
    out = _fuse(copy.deepcopy(plain), pairs)
    try:
        with _exact():
            return out if _equal(probe(out), wanted) else plain
    except Exception:  # a forward that reads its norms' attributes cannot be folded
        return plain


class _Order(TorchDispatchMode):
    """Who reads the outputs of the convolutions, observed operation by operation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        names = [(name, m) for name, m in network.named_modules(remove_duplicate=False) if name]
        places = Counter(id(m) for _, m in names)
        alone = [(name, m) for name, m in names if places[id(m)] == 1 and not _watched(m)]
        self.convs = {name: m for name, m in alone if _is_conv(m)}
        self.norms = {name: m for name, m in alone if _is_norm(m) and _settled_norm(m)}
        self.calls: dict[str, int] = dict.fromkeys([*self.convs, *self.norms], 0)
        self.inside: list[str] = []  # the convolutions and norms that are at work
        self.source: dict[int, str] = {}  # id of a convolution's output -> its name
        self.kept: list[Tensor] = []  # these outputs: while they live, no other tensor takes their id
        self.weights = {id(m.weight): name for name, m in self.convs.items()}
        self.readers: dict[str, set[str]] = {name: set() for name in self.convs}  # norms; "" is anything else

    def observe(self, probe: Probe) -> Any:
        """Run the network; returns its outputs."""
        with self._hooks(), _exact(), self:
            outputs = probe(self.network)
        self._read(tree_leaves(outputs))
        return outputs

    def pairs(self) -> list[Pair]:
        """What may be folded."""
        seen = [
            Pair(conv, next(iter(readers)))
            for conv, readers in self.readers.items()
            if len(readers) == 1 and readers != {""} and self.calls[conv] == 1
        ]
        proved = [pair for pair in seen if self.calls[pair.norm] == 1]
        return proved + [pair for pair in self._sequential() if not self.calls[pair.conv]]

    def _sequential(self) -> Iterator[Pair]:
        """Norms right behind a convolution among the children of a plain `nn.Sequential`."""
        for name, module in self.network.named_modules():
            if type(module) is nn.Sequential:
                children = [f"{name}.{child}" if name else child for child, _ in module.named_children()]
                for conv, norm in pairwise(children):
                    if conv in self.convs and norm in self.norms:
                        yield Pair(conv, norm)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._read(tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    def _read(self, tensors: Iterable[Any]) -> None:
        """Note who reads these: the norm at work, or anything else. A weight belongs to its own layer."""
        at_work = self.inside[-1] if self.inside else ""
        for tensor in tensors:
            if id(tensor) in self.source:
                self.readers[self.source[id(tensor)]].add(at_work if at_work in self.norms else "")
            owner = self.weights.get(id(tensor), at_work)
            if owner != at_work:
                self.readers[owner].add("")

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        handles = []
        for name, module in {**self.convs, **self.norms}.items():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def enter(module: nn.Module, inputs: Any) -> None:
            self.calls[name] += 1
            self.inside.append(name)

        return enter

    def _leave(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def leave(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.inside.pop()
            if name in self.convs:
                self.source[id(output)] = name
                self.kept.append(output)

        return leave


@contextmanager
def _exact() -> Iterator[None]:
    """Float32 as it is written: a GPU's shorter TF32 would be taken for a difference."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _is_conv(module: nn.Module) -> bool:
    """Convolutions whose output is linear in their weight. By exact type: a subclass may do anything."""
    return type(module) is nn.Conv2d or type(module) is _timm("Conv2dSame")


def _is_norm(module: nn.Module) -> bool:
    """Norms of which `_fuse` knows all that they do: timm's hold the activation too."""
    return type(module) is nn.BatchNorm2d or type(module) is _timm("BatchNormAct2d")


def _settled_norm(norm: Any) -> bool:
    """Whether a norm is one and the same linear function of every input."""
    return not norm.training and norm.running_mean is not None


def _watched(module: nn.Module) -> bool:
    """Whether hooks look at a module, or change it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _timm(name: str) -> type | None:
    """A class of timm's layers, where timm is in use."""
    return getattr(sys.modules.get("timm.layers"), name, None)


def _fuse(network: nn.Module, pairs: Collection[Pair]) -> nn.Module:
    """Fold in place. What timm's norms do behind the norm stays."""
    for conv, norm in pairs:
        after: Any = network.get_submodule(norm)
        fused = fuse_conv_bn_eval(network.get_submodule(conv), after)  # type: ignore[type-var]
        rest = nn.Identity() if type(after) is nn.BatchNorm2d else nn.Sequential(after.drop, after.act)
        for name, module in ((conv, fused), (norm, rest)):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, module)
    return network


def _equal(got: Any, wanted: Any) -> bool:
    """Whether all tensors in two outputs are equal, but for `TOLERANCE`."""
    pairs = list(zip(_tensors_in(got), _tensors_in(wanted), strict=True))
    return bool(pairs) and all(
        a.shape == b.shape and bool((a - b).norm() <= TOLERANCE * b.norm()) for a, b in pairs
    )


def _tensors_in(outputs: Any) -> list[Tensor]:
    return [leaf.float() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _with_fewer_products(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, Winograd(child) if suits(child) else _with_fewer_products(child))
    return module


def state_of(*modules: nn.Module | None) -> tuple[tuple[int, int], ...]:
    """Changes whenever a parameter or buffer is moved, loaded or edited in place."""
    tensors = [t for m in modules if m is not None for t in _tensors(m)]
    return tuple((t.data_ptr(), t._version) for t in tensors)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
