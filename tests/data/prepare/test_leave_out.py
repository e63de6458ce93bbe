"""An annotation of no use costs its image, or, where that is asked for, itself alone."""

import pytest

from tests.data.prepare.test_folder import photo, prepare
from tests.data.prepare.test_formats import coco, drawn, prepared


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1, 2, 3, 4]], "annotation 9: a polygon needs 3 points or more, got 2"),
        ([[4, 5, 52, 5, 52, 20]], None),
        ([[4, 5, 90, 5, 90, 20]], "annotation 9: reaches 40.0 pixels out of the image (50x30)"),
        (None, "annotation 9: its segmentation is missing, and a box or keypoints alone are no mask"),
        ([["a", 5, 9, 5, 9, 20]], 'annotation 9: points ["a", 5, 9, 5, 9, 20]; wanted pairs of numbers'),
    ],
)
def test_one_annotation_of_no_use(tmp_path, outline, message, capsys):
    """It costs its image, or with --leave-out annotation itself alone."""
    for name in "xy":
        photo(tmp_path / f"in/{name}.jpg")
    bad = {"id": 9, "image_id": 0, "category_id": 1, "segmentation": outline}
    file = coco(tmp_path / "in/a.json", ["x.jpg", "y.jpg"], [drawn(0, 0), drawn(1, 1), bad])
    assert set(prepared(tmp_path, file, code=2)) == {"y"}
    error = capsys.readouterr().err
    assert "annotation 9" in error and "--leave-out annotation" in error and (message or "") in error
    found = prepared(tmp_path, file, "--leave-out", "annotation")
    error = capsys.readouterr().err
    assert (
        set(found) == {"x", "y"} and (f"left out: {tmp_path}/in/x.jpg, {message}" if message else "") in error
    )
    assert (found["x"] == 1).sum() == ((found["y"] == 1).sum() if message else (found["x"] == 1).sum())
    assert message or "annotation 9, what lies over the border (2.0 pixels)" in error
    assert message or found["x"][6, 49] == 1  # what little reaches over the border is cut off


def test_an_annotation_that_marks_nothing_costs_nothing(tmp_path, capsys):
    for name in "xy":
        photo(tmp_path / f"in/{name}.jpg")
    empty = {"id": 9, "image_id": 0, "category_id": 1, "segmentation": [], "bbox": [0, 0, 0, 0]}
    file = coco(tmp_path / "in/a.json", ["x.jpg", "y.jpg"], [drawn(0, 0), drawn(1, 1), empty])
    assert len(prepared(tmp_path, file)) == 2
    assert "x.jpg, annotation 9 marks nothing" in capsys.readouterr().err
    file = coco(
        tmp_path / "in/a.json",
        ["x.jpg", "y.jpg"],
        [drawn(0, 0), drawn(1, 1), {**empty, "bbox": [1, 1, 5, 5]}],
    )
    assert prepare(tmp_path / "other", file) == 2  # a box alone marks something, and not its outline
    assert "its segmentation is []" in capsys.readouterr().err
