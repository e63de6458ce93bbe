"""Makes results with the files that may lie around them."""

import json
from pathlib import Path
from statistics import mean

import numpy as np

from fss.metrics import interval95
from fss.pictures.overlay import file_name, write_jpeg
from fss.report.episodes import Scored, episodes_text

MEASURED = Path(__file__).parent.parent / "docs/results/shapes_fold0_cwt_1shot.json"
CLASSES = ('<b>&"x', "plain", "ünï/code, too")
RUNS, EPISODES = 3, 4


def make_episodes(shift: int, shots: int = 1) -> list[Scored]:
    """Every class in every run; IoU from `shift` percent on, higher for later ones."""
    places = [(run, i) for run in range(RUNS) for i in range(EPISODES)]
    return [
        Scored(
            run,
            i,
            CLASSES[i % 3],
            f"q {i}",
            tuple(f"s{k},{i}" for k in range(shots)),
            shift + 5 * i + run,
            100,
        )
        for run, i in places
    ]


def make_result(
    folder: Path, head: str = "cwt", shift: int = 10, fold: int = 0, episodes: bool = True, log: bool = True,
    pictures: bool = True,
) -> Path:  # fmt: skip
    """A result of three runs of four episodes in `folder/test`, with what else was asked for; its path."""
    every = make_episodes(shift)
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    content["protocol"] |= {"runs": RUNS, "episodes": EPISODES, "fold": fold, "plan_sha256": f"{fold}" * 64}
    content["head"] = {"type": head}
    content["scores"] |= _scores(every)
    home = folder / "test"
    home.mkdir(parents=True)
    (home / "result.json").write_text(json.dumps(content), encoding="utf-8")
    if episodes:
        (home / "episodes.csv").write_text(episodes_text(every), encoding="utf-8")
    if log:
        lines = [{"step": s, "lr": 0.1, "total": 1 / (s + 1)} for s in range(500)]
        lines += [{"step": s, "validation": 20.0 + s / 50} for s in (0, 250, 500)]
        (folder / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    if pictures:
        (home / "visualize").mkdir()
        image = np.full((200, 608, 3), 90, np.uint8)
        for e in every:
            name = f"run{e.run}_{e.number:05d}_{file_name(e.class_name)}_iou{e.iou:05.1f}.jpg"
            write_jpeg(home / "visualize" / name, image)
    return home / "result.json"


def _scores(every: list[Scored]) -> dict:
    """The scores that a test would have written for these episodes."""
    counts = {
        name: {
            "intersection": [1, sum(e.intersection for e in every if e.class_name == name)],
            "union": [1, sum(e.union for e in every if e.class_name == name)],
        }
        for name in CLASSES
    }
    per_class = {name: 100 * c["intersection"][1] / c["union"][1] for name, c in counts.items()}
    shown = [sum(getattr(e, part) for e in every) for part in ("intersection", "union")]
    fb_iou = 50 + 50 * shown[0] / shown[1]  # of background is a pixel in each class, and found
    runs = []
    for run in range(RUNS):
        own = [[e.iou for e in every if e.run == run and e.class_name == name] for name in CLASSES]
        runs.append({"miou": sum(sum(x) / len(x) for x in own) / 3, "fb_iou": fb_iou})
    return {
        "miou": mean(r["miou"] for r in runs),
        "interval": interval95([r["miou"] for r in runs]),
        "runs": runs, "fb_iou": fb_iou, "per_class": per_class, "counts": counts, "unseen_classes": [],
        "episodes_run": len(every),
    }  # fmt: skip
