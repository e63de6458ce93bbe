"""Whatever is not markup is escaped, in text and in attributes."""

from fss.report.page.markup import Markup, join, tag


def test_text_and_attributes_are_escaped():
    got = tag("td", '<b>&"x', title='"><script>', class_="c", data_iou=1.5)
    assert got == '<td title="&quot;&gt;&lt;script&gt;" class="c" data-iou="1.5">&lt;b&gt;&amp;&quot;x</td>'


def test_markup_is_left_as_it_is_and_none_is_left_out():
    assert tag("p", tag("b", "<"), None, 7) == "<p><b>&lt;</b>7</p>"
    assert join(Markup("<i>"), "<i>", None) == "<i>&lt;i&gt;"
    assert tag("img", alt="", hidden=True, width=None, lazy=False) == '<img alt="" hidden>'
