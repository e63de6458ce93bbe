"""Seconds and memory of steps and episodes, as `fss` does them and as the methods are published, in turn.

    python studies/measure_speed.py studies/results/speed.json

The cases are those of `fss bench`, whose table this prints.
"""

import argparse
import json
from datetime import date
from pathlib import Path

import torch

from fss.bench.cases import Setting
from fss.bench.run import DEFAULT, bench, table
from fss.runs.folders import environment
from fss.runs.precision import wants_half


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--runs", type=int, default=3, help="of each way, after one to warm up")
    parser.add_argument("--size", type=int, help="of images, pixels (default: as each method is published)")
    parser.add_argument("--only", help="cases, separated by commas (default: all with one shot)")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(options.size, "resnet50", device, wants_half("auto", device))
    cases = bench(setting, options.only.split(",") if options.only else list(DEFAULT), options.runs)
    told = {
        "date": date.today().isoformat(), "size": setting.size, "backbone": setting.backbone,
        "half": setting.half, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "runs": options.runs, "cases": cases, "environment": environment(device),
    }  # fmt: skip
    options.out.write_text(json.dumps(told, indent=1) + "\n")
    print(table(cases, setting, options.runs))


if __name__ == "__main__":
    main()
