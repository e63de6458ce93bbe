"""Which packages are there, and whether they can be imported."""

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator

from fss.doctor.item import Item, State, guarded, reason

SECTION = "packages"
# Distribution -> the module that it brings, and the versions wanted. setup.py says the same; a test compares.
# What others stand on comes first, so that the first line that is broken is the cause.
REQUIRED = {
    "numpy": ("numpy", ">=1.26"),
    "pillow": ("PIL", ">=10"),
    "torch": ("torch", ">=2.6"),
    "torchvision": ("torchvision", ">=0.21"),
    "opencv-python-headless": ("cv2", ">=4.8"),
    "pydantic": ("pydantic", ">=2.6"),
    "pyyaml": ("yaml", ">=6"),
    "tensorboard": ("tensorboard", ">=2.14"),
    "tqdm": ("tqdm", ">=4.65"),
}
EXTRAS = {
    "completion": {"shtab": ("shtab", ">=1.10")},  # comes with fss, but all else works without it
    "prepare": {"pycocotools": ("pycocotools", ""), "scipy": ("scipy", "")},
    "demo": {"gradio": ("gradio", ">=6,<7")},
    "export": {
        "onnx": ("onnx", ">=1.16"),
        "onnxruntime": ("onnxruntime", ">=1.18"),
        "onnxscript": ("onnxscript", ">=0.2"),
    },
}
PURPOSE = {
    "completion": "completing commands in shells",
    "prepare": "making masks from official archives",
    "demo": "trying a model in the browser",
    "export": "ONNX files",
}


def packages() -> list[Item]:
    """Required packages one by one, imported; then each extra, looked for only."""
    items = []
    for name, (module, wanted) in REQUIRED.items():
        items += guarded(SECTION, name, lambda n=name, m=module, w=wanted: [required(n, m, w)])  # type: ignore[misc]
    return items + guarded(SECTION, "extras", _extras)


def required(name: str, module: str, wanted: str) -> Item:
    """One package that fss does not work without."""
    fix = f"pip install {_asked(name, wanted)}"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            return Item(SECTION, name, "broken", f"cannot be imported: {reason(error)}", _again(name))
        return Item(SECTION, name, "missing", "not installed", fix)
    except Exception as error:  # a library that does not load, two packages that do not fit, ...
        return Item(SECTION, name, "broken", f"cannot be imported: {reason(error)}", _again(name))
    version = str(getattr(found, "__version__", "") or _installed(name))
    if not version:
        return Item(SECTION, name, "ok", "version unknown")
    if not fits(version, wanted):
        return Item(SECTION, name, "missing", f"{version} is there, wanted is {wanted}", fix)
    return Item(SECTION, name, "ok", version)


def _extras() -> Iterator[Item]:
    for extra, parts in EXTRAS.items():
        found = {name: _installed(name) for name in parts if importlib.util.find_spec(parts[name][0])}
        lacking = [n for n in parts if n not in found or not fits(found[n], parts[n][1])]
        there = ", ".join(f"{name} {version}" for name, version in found.items())
        state: State = "optional" if lacking else "ok"
        why = f"; for {PURPOSE[extra]}: {', '.join(lacking)}" if lacking else ""
        fix = "pip install " + " ".join(_asked(n, parts[n][1]) for n in lacking) if lacking else ""
        yield Item(SECTION, f"[{extra}]", state, (there or "not installed") + why, fix)


def number(version: str) -> tuple[int, ...]:
    """2.15.0+cpu -> (2, 15, 0), for comparing; () where there is none."""
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])


def fits(version: str, wanted: str) -> bool:
    """Whether 2.15.0 is what >=2.6,<3 asks for; those two signs are all that setup.py uses."""
    least = [number(part) for part in wanted.split(",") if part.startswith(">=")]
    below = [number(part) for part in wanted.split(",") if part.startswith("<")]
    return all(number(version) >= n for n in least) and all(number(version) < n for n in below)


def _asked(name: str, wanted: str) -> str:
    return f'"{name}{wanted}"' if wanted else name


def _again(name: str) -> str:
    both = ("torch", "torchvision")  # made for each other: one alone may not fit the other that is there
    return "pip install --force-reinstall " + " ".join(both if name in both else [name])


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
