"""Packaging: `pip install -e .` for a checkout, `pip install .` elsewhere."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "fss/__init__.py").read_text(encoding="utf-8"))[1]
EXPORT = ["onnx", "onnxruntime", "onnxscript"]
DEV = ["hypothesis", "mypy", "pycocotools", "pytest", "ruff", "scipy", "types-PyYAML", "types-tqdm", *EXPORT]

setup(
    name="fss",
    version=VERSION,
    description="Few-shot segmentation: one backbone, one protocol, many heads",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=[*find_packages(include=["fss", "fss.*"]), "fss.configs"],
    # The recipes lie beside the package in a checkout and inside it once installed.
    package_dir={"fss.configs": "configs"},
    package_data={"fss.configs": ["*.yaml", "*/*.yaml"], "fss.report": ["published.yaml"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26",
        "opencv-python-headless>=4.8",  # headless: the plain wheel needs a display's libraries
        "pillow>=10",
        "pydantic>=2.6",
        "pyyaml>=6",
        "tensorboard>=2.14",
        "tqdm>=4.65",
    ],
    extras_require={"dev": DEV, "export": EXPORT, "prepare": ["pycocotools", "scipy"]},
    entry_points={"console_scripts": ["fss = fss.cli:main"]},
)
