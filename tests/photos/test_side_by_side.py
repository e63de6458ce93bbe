"""Photos side by side: in their order, one thread each, with the answers of one after another."""

import threading
import time

import numpy as np
import pytest
import torch

import fss
from fss.errors import UserError
from fss.photos.side_by_side import side_by_side
from tests.photos.test_predict import NETWORK, SIZE, photos, predict, put, scene  # noqa: F401

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_results_come_in_order_with_one_thread_each(three_threads):
    at_work, most, lock = 0, 0, threading.Lock()

    def work(number):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.01 * (7 - number))  # the first ones take longest
        with lock:
            at_work -= 1
        return number, torch.get_num_threads()

    assert list(side_by_side(work, range(7), CPU)) == [(n, 1) for n in range(7)]
    assert most == 3 and torch.get_num_threads() == threads_of_a_new_thread() == 3


def test_few_results_wait_for_whoever_takes_them(three_threads):
    begun = []
    results = side_by_side(begun.append, range(100), CPU)
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 5
    results.close()
    assert len(begun) <= 5 and threads_of_a_new_thread() == 3


def test_an_error_comes_in_its_place_and_ends_the_work(three_threads):
    begun = []

    def work(number):
        begun.append(number)
        if number == 2:
            raise UserError("the third")
        return number

    results = side_by_side(work, range(50), CPU)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(UserError, match="the third"):
        next(results)
    assert len(begun) < 10


def test_one_thread_works_one_after_another():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        me = threading.get_ident()
        assert set(side_by_side(lambda _: threading.get_ident(), range(3), CPU)) == {me}
    finally:
        torch.set_num_threads(before)


def test_masks_are_those_of_one_after_another(three_threads):
    predictor = fss.Predictor(settings=NETWORK, size=SIZE)
    image, mask = scene((10, 50))
    predictor.learn(fss.Support(image, mask))
    queries = [scene((5 + 4 * n, 12 + 6 * n), seed=n)[0] for n in range(6)]
    for query, found in zip(queries, predictor.each(queries), strict=True):
        assert np.abs(found.odds - predictor(query).odds).max() < 1e-3
        assert np.array_equal(found.image, query)


def test_the_command_leaves_out_what_it_cannot_read_and_keeps_the_rest(photos, three_threads, capsys):  # noqa: F811
    for n in range(5):
        put(photos / f"many/{n}.png", scene((5 + 4 * n, 12), seed=n)[0])
    (photos / "many/2.png").write_bytes(b"no picture")
    assert predict("--support", "support.png", "mask.png", "--query", "many") == 2
    assert "1 of 5 queries could not be segmented" in capsys.readouterr().err
    assert sorted(p.name for p in (photos / "out").glob("*_labels.png")) == [
        f"{n}_labels.png" for n in (0, 1, 3, 4)
    ]
