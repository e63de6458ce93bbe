"""Episodes as text and back, and what is made of them."""

import json
import tracemalloc

import pytest

from fss.errors import UserError
from fss.metrics import interval95
from fss.report.episodes import Scored, class_intervals, episodes_of, episodes_text, read_episodes
from fss.report.results import read_results
from tests.make_results import make_episodes, make_result


def test_text_says_all_and_is_read_back(tmp_path):
    odd = Scored(0, 0, 'a,"b"\nc', "q;1, 2", ("x y", "z\tü"), 1, 3)
    episodes = [odd, *make_episodes(10, shots=2)]
    text = episodes_text(episodes)
    assert text.startswith("run,number,class,query,support_1,support_2,intersection,union,iou\n")
    assert "1,3,33.3333\n" in text
    (tmp_path / "episodes.csv").write_bytes(text.encode())
    assert read_episodes(tmp_path / "episodes.csv") == episodes


def test_names_that_a_spreadsheet_would_compute_come_back(tmp_path):
    episodes = [Scored(0, 0, "=1+1", "@q", ("-x", "'=s"), 1, 3)]
    text = episodes_text(episodes)
    assert "0,0,'=1+1,'@q,'-x,''=s,1,3" in text
    (tmp_path / "episodes.csv").write_text(text)
    assert read_episodes(tmp_path / "episodes.csv") == episodes


def test_a_billion_episodes_cost_no_more_than_the_file_holds(tmp_path):
    path = make_result(tmp_path, pictures=False)
    content = json.loads(path.read_text())
    content["protocol"] |= {"runs": 3, "episodes": 10**9}
    content["scores"]["episodes_run"] = 3 * 10**9
    path.write_text(json.dumps(content))
    (result,) = read_results([path])
    tracemalloc.start()
    episodes, why = episodes_of(result)
    assert not episodes and "does not add up to it" in why
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_no_more_episodes_are_read_than_the_result_has(tmp_path):
    path = make_result(tmp_path, pictures=False)
    more = episodes_text([*make_episodes(10), *make_episodes(10)]) + "a line that nobody comes to\n"
    path.with_name("episodes.csv").write_text(more)
    assert "does not add up to it" in episodes_of(read_results([path])[0])[1]


def test_nothing_to_find_and_nothing_found_is_0():
    assert Scored(0, 0, "a", "q", ("s",), 0, 0).iou == 0


@pytest.mark.parametrize("line", ["0,0,a,q,s,1", "0,0,a,q,s,1,2,50,9", "x,0,a,q,s,1,2,50", "0,0,a,q,s,,2,50"])
def test_odd_lines_are_named(line, tmp_path):
    good = episodes_text([Scored(0, 0, "a", "q", ("s",), 1, 2)])
    (tmp_path / "episodes.csv").write_text(f"{good}{line}\n")
    with pytest.raises(UserError, match=r"episodes\.csv line 3 is no episode"):
        read_episodes(tmp_path / "episodes.csv")


def test_intervals_are_over_runs():
    counts = [("a", 0, 10, 100), ("a", 0, 30, 100), ("a", 1, 40, 100), ("b", 0, 1, 2)]
    episodes = [Scored(run, i, name, "q", ("s",), x, u) for i, (name, run, x, u) in enumerate(counts)]
    assert class_intervals(episodes) == {"a": pytest.approx(interval95([20.0, 40.0]))}  # b: in one run alone


def test_episodes_of_another_test_are_not_taken(tmp_path):
    path = make_result(tmp_path / "one", shift=10)
    (result,) = read_results([path])
    assert len(episodes_of(result)[0]) == 12 and episodes_of(result)[1] == ""
    for other in (make_episodes(11), make_episodes(10)[::-1]):
        path.with_name("episodes.csv").write_text(episodes_text(other))
        episodes, why = episodes_of(result)
        assert not episodes and "does not add up to it" in why
    path.with_name("episodes.csv").unlink()
    episodes, why = episodes_of(result)
    assert not episodes and "no episodes.csv beside it" in why


def test_odd_counts_are_an_odd_result(tmp_path):
    path = make_result(tmp_path)
    content = json.loads(path.read_text())
    content["scores"]["counts"]["plain"] = {"intersection": [1]}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"result.json is no result of a test: scores.counts.plain"):
        read_results([path])
