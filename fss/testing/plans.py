"""Which episodes are drawn: planners of a configuration, the plans of a test, and plans as files."""

from pathlib import Path

from fss.config import Config
from fss.data.hsnet_draws import HSNetPlanner
from fss.data.plan import Draw, Planner, plan_hash
from fss.data.planfile import plan_text, read_plan
from fss.data.source import Source, open_source
from fss.errors import UserError
from fss.writing import write_text


def planner_for(
    config: Config, source: Source, classes: list[int], shots: int, seed: int, shuffle: bool = False,
    sampling: str = "list",
) -> Planner:  # fmt: skip
    """A planner over the images of `source` that count for `classes`."""
    pools = source.pools(classes, config.data.min_pixels, shots + 1, config.data.small_classes)
    if sampling.startswith("hsnet"):
        return HSNetPlanner(pools, shots, seed, sampling)
    return Planner(pools, shots, seed, shuffle, sampling)


def make_plans(config: Config, source: Source) -> list[list[Draw]]:
    """The episodes of every run, drawn from the seed or read from `test.plan`.

    Raises:
        UserError: too few images of a class, or a plan that fits neither the data nor `test.shots`.
    """
    if config.test.plan is None:
        t = config.test
        planner = planner_for(config, source, source.novel, t.shots, t.seed, sampling=t.sampling)
        return [planner.run(run, t.episodes) for run in range(t.runs)]
    plans = read_plan(config.test.plan, source)
    shots = len(plans[0][0].supports)
    if shots != config.test.shots:
        raise UserError(f"{config.test.plan} holds {shots}-shot episodes; ask for test.shots={shots}")
    return plans


def run_plan(config: Config, out: Path) -> None:
    """The episodes of a test as a text file that `test.plan` takes."""
    if out.exists():
        raise UserError(f"{out} exists; name another file")
    source = open_source(config.data, "val", config.output / "cache")
    plans = make_plans(config, source)
    write_text(out, plan_text(plans, source))
    print(f"{sum(map(len, plans))} episodes, plan {plan_hash(plans, source)[:12]} -> {out}")
