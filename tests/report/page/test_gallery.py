"""Which pictures a page takes along."""

import base64

import cv2
import numpy as np
import pytest

from fss.errors import UserError
from fss.pictures.overlay import write_jpeg
from fss.report.episodes import episodes_of
from fss.report.page.gallery import cards, choose, data_uri, find_pictures
from fss.report.results import read_results
from tests.make_results import make_episodes, make_result


def found(path, known=True):
    (result,) = read_results([path])
    return result, find_pictures(result, episodes_of(result)[0] if known else [])


def test_pictures_get_their_class_from_the_episodes(tmp_path):
    path = make_result(tmp_path)
    _, (pictures, old) = found(path)
    expected = [(e.run, e.number, e.class_name, round(e.iou, 1), e.query) for e in make_episodes(10)]
    assert [(p.run, p.number, p.class_name, p.iou, p.query) for p in pictures] == expected and old == 0
    _, (pictures, _) = found(path, known=False)
    assert pictures[2].class_name == "ünï-code,-too" and pictures[2].query == ""


def test_pictures_of_an_earlier_test_are_left_out(tmp_path):
    path = make_result(tmp_path)
    one = next((path.parent / "visualize").glob("run0_00001_*"))
    one.rename(one.with_name("run0_00001_plain_iou099.0.jpg"))
    (path.parent / "visualize" / "run7_00000_plain_iou010.0.jpg").write_bytes(b"")
    (path.parent / "visualize" / "contact_sheet.jpg").write_bytes(b"")
    _, (pictures, old) = found(path)
    assert (len(pictures), old) == (11, 2)


def test_an_episode_is_one_card_for_all_heads(tmp_path):
    sets = []
    for row, shift in enumerate((10, 30)):
        result, (pictures, _) = found(make_result(tmp_path / str(row), shift=shift))
        sets.append((row, result, pictures[row:]))
    other, (pictures, _) = found(make_result(tmp_path / "other", fold=1))
    every = cards([*sets, (0, other, pictures)])
    assert len(every) == 24 and [c.iou for c in every] == sorted(c.iou for c in every)
    both = [c for c in every if len(c.pictures) == 2]
    assert len(both) == 11 and all(b.iou - a.iou == 20 for c in both for (_, a), (_, b) in [c.pictures])


def test_chosen_evenly_from_worst_to_best(tmp_path):
    result, (pictures, _) = found(make_result(tmp_path))
    every = cards([(0, result, pictures)])
    assert [every.index(c) for c in choose(every, 4)] == [0, 4, 7, 11]
    assert choose(every, 100) == every and choose(every, 0) == [] and choose(every, 1) == every[:1]
    assert choose([], 5) == []


def test_pictures_are_carried_small(tmp_path):
    write_jpeg(tmp_path / "a.jpg", np.full((200, 1424, 3), (200, 30, 30), np.uint8))
    uri, width, height = data_uri(tmp_path / "a.jpg")
    data = np.frombuffer(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")), np.uint8)
    image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert image.shape == (height, width, 3) == (135, 960, 3)
    assert abs(image.mean((0, 1)) - (200, 30, 30)).max() < 4
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(UserError, match=r"a\.jpg is damaged; test again"):
        data_uri(tmp_path / "a.jpg")
