"""fss: few-shot segmentation, one backbone, one protocol, many heads."""

__version__ = "0.1.0"
