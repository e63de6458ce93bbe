"""Nothing draws from the global generators but with a seed of its own, and so nothing shifts what follows."""

import ast
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import fss
from fss.bench.cases import Setting
from fss.bench.run import bench
from fss.cli import main
from fss.randomness import seeded
from tests.make import TINY, make_folder, unmoved

PACKAGE = Path(fss.__file__).parent
ASGNET = ("--head", "asgnet", "head.width=8", "head.sizes=[7,4]", "head.cells=2")
QUICK = tuple(setting for setting in TINY if not setting.startswith("head."))


def draw():
    return float(torch.rand(())), float(np.random.random()), random.random()


def test_a_seed_decides_what_is_drawn_and_all_is_as_before_afterwards():
    with unmoved():
        with seeded(3):
            first = draw()
        with seeded(4):
            other = draw()
            with seeded(3):  # within another
                again = draw()
            after = draw()
        with seeded(4):
            assert (draw(), draw()) == (other, after)
    assert first == again and not set(first) & set(other)


def test_an_error_leaves_the_generators_as_they_were():
    with unmoved(), pytest.raises(ValueError), seeded(2**40):
        draw()
        raise ValueError


# Functions of a module that draw from its global generator; with one of these arguments they do not.
DRAWING = {
    "torch": ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson",
              "rand_like", "randn_like", "randint_like", "manual_seed", "seed"),
    "np.random": ("seed", "rand", "randn", "randint", "random", "choice", "permutation", "shuffle", "uniform",
                  "normal"),
    "random": ("seed", "random", "randint", "choice", "choices", "sample", "shuffle", "uniform", "gauss"),
}  # fmt: skip


def drawn_in(path):
    """Lines of a file that draw from a global generator, or seed one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        module, _, name = ast.unparse(node.func).rpartition(".")
        own = {keyword.arg for keyword in node.keywords} & {"generator"}
        # `random` names a generator of NumPy's in most files; it is Python's module where it is imported.
        if name in DRAWING.get(module, ()) and not own and (module != "random" or "random" in imported):
            yield f"{path.relative_to(PACKAGE)}:{node.lineno} {module}.{name}"


def test_no_file_draws_from_a_global_generator_itself():
    """What draws within PyTorch (a layer's first weights, dropout, a loader) is seen by the tests below."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "randomness.py"]
    assert [line for path in files for line in drawn_in(path)] == []


def test_drawing_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "drawing.py"
    path.write_text(
        "import random\ntorch.rand(2)\ntorch.rand(2, generator=g)\nnp.random.rand(1)\nrandom.random()\n"
    )
    monkeypatch.setattr("tests.test_randomness.PACKAGE", tmp_path)
    assert len(list(drawn_in(path))) == 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder set, and what was trained on it."""
    place = tmp_path_factory.mktemp("drawn")
    make_folder(place / "set")
    return place


def run(place, verb, *arguments):
    where = ["--data", "folder", f"data.root={place / 'set'}", f"output={place / 'results'}", *QUICK]
    assert main([verb, *where, *arguments]) == 0


UNTRAINED = ("pretrain.epochs=0", "neck.type=sfnet", "neck.auxiliary=true")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("train", ("head.steps=5", "--visualize")),  # both trainings, their validations, a test, pictures
        ("train", ("head.steps=5", "train.cache=true", "train.augment=none", "tag=cached")),
        ("train", (*ASGNET, "data.workers=1")),
        ("pretrain", UNTRAINED),
        ("test", ("head.steps=5", "--explain", "test.episodes=4")),
        ("test", ("--head", "prototype", "test.support=scribble")),
    ],
    ids=["train-cwt", "train-cached", "train-asgnet-workers", "untrained", "test-explain", "test-scribbles"],
)
def test_a_verb_leaves_the_generators_alone(place, verb, arguments):
    if "--explain" in arguments:
        run(place, "train", "head.steps=5")  # found done, if the tests above ran in this process
    with unmoved():
        run(place, verb, *arguments)


def test_models_of_files_and_timed_steps_leave_the_generators_alone(place):
    run(place, "train", "head.steps=5")  # found done, if the tests above ran
    (best,) = place.glob("results/folder/fold0/cwt,steps=5_resnet18_random_1shot/best.pt")
    with unmoved():
        assert fss.load_model(best).head.learns
        bench(Setting(49, "resnet18", torch.device("cpu"), False), ["cwt_train_1shot"], 1)
