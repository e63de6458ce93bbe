"""A protocol's number tells protocols apart."""

from fss.report.protocol import FREE, protocol_id

PROTOCOL = {
    "data": "pascal", "fold": 0, "folds": 4, "scheme": "contiguous", "trained_on": None, "shots": 1,
    "runs": 5, "episodes": 1000, "seed": 2021, "sampling": "query list in order", "min_pixels": 2048,
    "novel_in_training": "background", "image_size": 473, "label_size": "original",
    "selection": "last checkpoint", "list_sha256": "6f8e", "published_list": True, "plan_sha256": "ab",
}  # fmt: skip


def test_number_changes_with_every_field_that_a_table_must_agree_in():
    own = protocol_id(PROTOCOL)
    for key in PROTOCOL.keys() - set(FREE):
        assert protocol_id({**PROTOCOL, key: "other"}) != own, key
    for key in FREE:
        assert protocol_id({**PROTOCOL, key: "other"}) == own, key
    assert protocol_id({k: v for k, v in PROTOCOL.items() if v is not None}) == own  # of an older version
