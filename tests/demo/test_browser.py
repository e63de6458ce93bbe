"""The page as a person uses it, in a real browser: paint, search, slide, download; and mistakes."""

import contextlib
import http.client
import os
import re
import socket
import zipfile
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from fss.demo.serve import serving

SETTINGS = ("device=cpu", "precision=fp32")  # the model is what is installed
RANDOM = ("backbone.weights=random", "backbone.type=resnet18", *SETTINGS)
PATIENCE = 60_000  # ms, of a slow core
QUERY = np.s_[50:110, 70:150]  # where the thing is in the second photo
_READ = """async (img) => {
  await img.decode();
  const c = document.createElement('canvas');
  [c.width, c.height] = [img.naturalWidth, img.naturalHeight];
  const on = c.getContext('2d');
  on.drawImage(img, 0, 0);
  return [c.height, c.width, ...on.getImageData(0, 0, c.width, c.height).data];
}"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A red thing in the middle of one photo and elsewhere in another, and what is no photo or no mask."""
    folder = tmp_path_factory.mktemp("photos")
    for name, size, thing in (("cup.png", (96, 128), np.s_[20:80, 30:100]), ("table.png", (120, 160), QUERY)):
        image = np.full((*size, 3), (70, 80, 60), np.uint8)
        image[thing] = (230, 40, 30)
        Image.fromarray(image).save(folder / name)
    (folder / "text.jpg").write_text("no photo")
    Image.fromarray(np.ones((9, 9), np.uint8)).save(folder / "small.png")
    mask = np.zeros((96, 128), np.uint8)
    mask[20:80, 30:100] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page's address, and every address that this process reached for meanwhile."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    reached: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connecting(self, address):
        reached.append(str(address[0]) if isinstance(address, tuple) else "a file")
        return connect(self, address)

    def looking_up(host, *more, **others):
        reached.append(str(host))
        return look_up(host, *more, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connecting)
        patch.setattr(socket, "getaddrinfo", looking_up)
        with serving(None, tmp_path_factory.mktemp("results"), 0, SETTINGS) as url:
            folder = os.environ["GRADIO_TEMP_DIR"]
            assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
            yield url, reached
    assert "GRADIO_TEMP_DIR" not in os.environ and not os.path.exists(folder)


@pytest.fixture
def page(browser, served):
    """The page, opened; afterwards nothing had been asked of any other machine."""
    with opened(browser, *served) as there:
        yield there


@contextlib.contextmanager
def opened(browser, url, reached, width=1000, **more):
    """The page of a server, in a window of its own."""
    context = browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True, **more)
    context.set_default_timeout(PATIENCE)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    there = context.new_page()
    there.goto(url)
    there.locator("#run").wait_for()
    yield there
    context.close()
    hosts = {urlparse(u).hostname for u in asked if not u.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert set(reached) <= {"127.0.0.1", "localhost", "a file"}, reached


@pytest.mark.parametrize(
    ("name", "status"), [("127.0.0.1:1", 200), ("localhost", 200), ("evil.example", 400)]
)
def test_it_answers_to_its_own_names_only(served, name, status):
    connection = http.client.HTTPConnection(urlparse(served[0]).netloc, timeout=60)
    connection.request("GET", "/", headers={"Host": name})
    assert connection.getresponse().status == status
    connection.close()


def test_another_port_of_this_machine_is_another_page(served):
    place = urlparse(served[0]).netloc
    for origin, status in ((f"http://{place}", 200), ("http://127.0.0.1:1", 403), ("http://localhost", 403)):
        connection = http.client.HTTPConnection(place, timeout=60)
        connection.request("GET", "/", headers={"Origin": origin})
        answer = connection.getresponse()
        assert answer.status == status and answer.headers["X-Frame-Options"] == "DENY"
        connection.close()


def drop(page, where, *paths):
    page.set_input_files(f"#{where} input[type=file]", [str(p) for p in paths])


def pixels(page, selector):
    """An image as the browser shows it, (H,W,3) uint8."""
    height, width, *values = page.locator(selector).evaluate(_READ)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def shown_after(page, act):
    """The result's picture, once `act` has changed it."""
    before = page.locator("#result img").evaluate("img => img.src")
    act()
    page.wait_for_function("was => document.querySelector('#result img').src !== was", arg=before)
    return pixels(page, "#result img")


def drop_supports(page, *paths):
    """Drop photos to mark, and wait until the first is in the editor."""
    zoom = page.locator("#editor .zoom-number span").inner_text()
    drop(page, "drop-supports", *paths)
    page.wait_for_function(
        "was => document.querySelector('#editor .zoom-number span').innerText !== was", arg=zoom
    )
    page.locator("#supports img").nth(len(paths) - 1).wait_for()


def said(page, text):
    """Wait until the line by the button says this."""
    page.locator("#needed", has_text=text).wait_for()


def way(page, text):
    """Wait until this way to mark is the chosen one."""
    page.locator("#way label.selected", has_text=text).wait_for()


def paint(page):
    """Three thick red lines over the thing, which is in the middle of the photo in the editor."""
    page.locator("#editor canvas").first.scroll_into_view_if_needed()
    box = page.locator("#editor canvas").first.bounding_box()
    scale = float(page.locator("#editor .zoom-number span").inner_text().strip("%")) / 100
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for down in (-14, 2, 18):
        page.mouse.move(x - 20 * scale, y + down * scale)
        page.mouse.down()
        page.mouse.move(x + 22 * scale, y + down * scale, steps=2)
        page.mouse.up()
    page.locator("#editor button[aria-label='Undo']:not([disabled])").wait_for()


def share(page):
    """Percent of the photo that is the thing, as the page says."""
    return float(re.search(r"([\d.]+)%", page.locator("#shares").inner_text())[1])


def share_after(page, act, least, most):
    """The share, once `act` has brought it between these two."""
    act()
    page.wait_for_function(
        """([least, most]) => {
          const found = /([\\d.]+)%/.exec(document.querySelector('#shares')?.innerText);
          return found && least <= +found[1] && +found[1] <= most;
        }""",
        arg=[least, most],
    )
    return share(page)


def test_paint_search_slide_and_download(page, photos, tmp_path):
    assert page.locator("#model input").input_value() == "Installed: ImageNet features"
    said(page, "Drop a photo of the thing, and mark it.")
    drop_supports(page, photos / "cup.png")
    said(page, "Mark the thing in the photo, and press Use it.")
    paint(page)
    page.fill("#name input, #name textarea", "cup <b>")
    page.click("#use")
    page.locator("#supports .caption-label", has_text="cup <b>").wait_for()
    said(page, "Drop photos to search in.")
    drop(page, "drop-queries", photos / "table.png")
    page.locator("#queries img").wait_for()
    said(page, "Ready: 1 example, 1 photo.")
    page.click("#run")
    page.locator("#result img").wait_for()
    page.locator("#stop").wait_for(state="hidden")
    assert page.locator("#shares").inner_text().strip().startswith("cup <b> ")

    photo, overlay = np.asarray(Image.open(photos / "table.png")), pixels(page, "#result img")
    blue = overlay[..., 2].astype(int) - photo[..., 2]
    truth = np.zeros(blue.shape, bool)
    truth[QUERY] = True
    assert overlay.shape == photo.shape
    assert blue[truth].mean() > 45 and abs(blue[~truth].mean()) < 20  # 0.3 (255 - 30) where all is found

    slider, number = (page.locator(f"#threshold input[type={kind}]") for kind in ("range", "number"))
    at_half = share(page)
    share_after(page, lambda: slider.press("End"), 0, at_half - 3)
    share_after(page, lambda: slider.press("Home"), at_half + 3, 100)
    number.fill("0.5")
    at_half_again = share_after(page, lambda: number.press("Tab"), at_half - 2, at_half + 2)
    assert at_half_again == at_half

    mask = shown_after(page, lambda: page.click("#view label:has-text('Mask')"))
    found = mask[..., 2] > 128
    assert 100 * found.mean() == pytest.approx(share(page), abs=0.5)
    assert (found & truth).sum() / (found | truth).sum() > 0.6

    page.click("#save")
    with page.expect_download() as png:
        page.click("#files a[href*='mask_cup']")
    saved = np.asarray(Image.open(png.value.path()))
    assert saved.shape == photo.shape[:2] and set(np.unique(saved)) == {0, 255}
    assert ((saved > 0) == found).mean() > 0.99  # the browser's copy is a JPEG
    with page.expect_download() as archive:
        page.click("#files a[href*='masks.zip']")
    with zipfile.ZipFile(archive.value.path()) as files:
        assert {n for n in files.namelist() if "mask_cup" in n or "labels" in n} == {
            png.value.suggested_filename, "table_labels.png"
        }  # fmt: skip


def test_marks_are_shown_as_understood_and_the_way_to_mark_is_kept(page, photos):
    drop_supports(page, photos / "cup.png", photos / "table.png")
    understood, how = page.locator("#understood img"), page.locator("#how")
    assert not how.is_visible() and not page.locator("#next").is_visible()
    paint(page)
    page.click("#use")
    how.filter(has_text=re.compile(r"cup\.png, understood as object: \d+% of the photo")).wait_for()
    photo, shown = np.asarray(Image.open(photos / "cup.png")).astype(int), pixels(page, "#understood img")
    covered = abs(shown - photo).sum(2) > 60
    assert shown.shape == photo.shape and understood.bounding_box()["height"] > 200
    part = int(re.search(r"(\d+)%", how.inner_text())[1])
    assert 100 * covered.mean() == pytest.approx(part, abs=3) and covered[48, 64]
    said(page, "Mark the thing in 1 more photo, or go on: drop photos to search in.")
    page.click("#way label:has-text('Scribble')")
    page.click("#next")
    how.wait_for(state="hidden")
    way(page, "Scribble")
    assert not understood.is_visible() and not page.locator("#next").is_visible()
    page.locator("#supports .thumbnail-item").first.click()
    how.wait_for()
    way(page, "Paint it")
    page.locator("#supports .thumbnail-item").nth(1).click()
    how.wait_for(state="hidden")
    way(page, "Scribble")
    page.click("#remove")
    said(page, "Drop photos to search in.")


def test_a_model_that_knows_no_photos_is_used_with_a_warning(browser, photos, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed")
    with serving(None, tmp_path, 0, RANDOM) as url, opened(browser, url, []) as page:
        drop_supports(page, photos / "cup.png")
        paint(page)
        drop(page, "drop-queries", photos / "table.png")
        page.locator("#queries img").wait_for()
        page.click("#run")  # which uses the marks first, and shows them
        page.locator("[data-testid='toast-body']", has_text="random weights, not from ImageNet").wait_for()
        page.locator("#how", has_text="cup.png, understood as object").wait_for()
        page.locator("#result img").wait_for()


_FAINT = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = node => {  // the nearest background that covers
    for (; node; node = node.parentElement) {
      const [r, g, b, a] = parse(getComputedStyle(node).backgroundColor);
      if (r !== undefined && (a === undefined || a > 0.99)) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const out = [];
  for (const node of document.querySelectorAll('body *')) {
    if (node.matches('script, style, :disabled') || !node.getClientRects().length
        || !node.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const own = [...node.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    const typed = node.matches('input:not([type=range]), textarea') ? node.value : '';
    const before = getComputedStyle(node, '::before'), drawn = /^"(.+)"$/.exec(before.content);
    const paper = parse(before.backgroundColor);
    for (const [text, looks, back] of [
      [own || typed, getComputedStyle(node), behind(node)],
      [drawn ? drawn[1] : '', before, paper[3] === 0 ? behind(node) : paper],
    ]) {
      if (!text || looks.fontSize === '0px') continue;
      const [a, b] = [light(parse(looks.color)), light(back)];
      out.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.slice(0, 60), looks.color]);
    }
  }
  return out;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_contrast(browser, served, photos, theme):
    url, reached = served
    with opened(browser, f"{url}?__theme={theme}", reached) as page:
        drop_supports(page, photos / "cup.png", photos / "table.png")
        paint(page)
        page.click("#use")
        page.locator("#next").wait_for()
        drop(page, "drop-queries", photos / "table.png")
        page.locator("#queries img").wait_for()
        texts = page.evaluate(_FAINT)
        said_somewhere = " ".join(text for _, text, _ in texts)
        for hint in ("Cover the object", "Choose, or type", "Drop photos here", "Slide until", "How to mark"):
            assert hint in said_somewhere
        assert [text for text in texts if text[0] < 4.5] == []


def test_a_phone_needs_no_sideways_scrolling(browser, served, photos):
    with opened(browser, *served, width=375, has_touch=True, is_mobile=True) as page:
        drop_supports(page, photos / "cup.png", photos / "table.png")
        touch(page)
        page.click("#use")
        page.locator("#how", has_text="cup.png, understood as object").wait_for()
        drop(page, "drop-queries", photos / "table.png", photos / "cup.png")
        page.locator("#queries img").nth(1).wait_for()
        page.click("#run")
        page.locator("#results img").nth(1).wait_for()
        page.click("#save")
        page.locator("#files a[href*='masks.zip']").wait_for()
        assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [375, 375]
        for name in (
            "editor",
            "way",
            "use",
            "remove",
            "next",
            "understood",
            "run",
            "result",
            "save",
            "files",
        ):
            box = page.locator(f"#{name}").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 375, name
            assert box["width"] >= 60 and box["height"] >= 24, name


def touch(page):
    """A red line over the thing in the editor, by a finger."""
    page.locator("#editor canvas").first.scroll_into_view_if_needed()
    box = page.locator("#editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger = page.context.new_cdp_session(page)
    for kind, right in (("touchStart", -30), ("touchMove", 0), ("touchMove", 30), ("touchEnd", None)):
        points = [] if right is None else [{"x": x + right, "y": y}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.locator("#editor button[aria-label='Undo']:not([disabled])").wait_for()


def test_mistakes_are_messages(page, photos):
    said = page.locator("[data-testid='toast-body']")
    page.click("#run")
    said.filter(has_text="mark the object in at least one photo").wait_for()
    page.locator("#run:not([disabled])").wait_for()
    drop(page, "drop-supports", photos / "text.jpg", photos / "cup.png")
    said.filter(has_text="image text.jpg is damaged or of an unknown format").wait_for()
    page.locator("#supports img").wait_for()  # the other one is there
    page.click("#use")
    said.filter(has_text="cup.png: nothing is marked red; paint over the object").wait_for()
    page.click("#save")
    said.filter(has_text="nothing to save yet").wait_for()
    page.click("#way label:has-text('Mask file')")
    drop(page, "drop-mask", photos / "small.png")
    page.locator("#drop-mask", has_text="small").wait_for()
    page.click("#use")
    said.filter(has_text="cup.png: the mask is 9x9, the image 128x96").wait_for()
    page.click("#drop-mask button[aria-label='Clear']")
    drop(page, "drop-mask", photos / "mask.png")
    page.locator("#drop-mask", has_text="mask").wait_for()
    drop(page, "drop-queries", photos / "table.png")
    page.locator("#queries img").wait_for()
    page.fill("#model input", "nowhere.pt")
    page.locator("#model input").press("Enter")
    page.click("#run")  # which uses the mask first
    said.filter(has_text="no checkpoint nowhere.pt; name a .pt file").wait_for()
    page.locator("#supports .caption-label", has_text="object").wait_for()
    text = page.locator("body").inner_text()
    assert "Traceback" not in text and "fss-demo-" not in text
