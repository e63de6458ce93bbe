"""The page's layout: three steps side by side. `acts` has its buttons' acts."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fss.demo.acts import HINTS, Acts
from fss.demo.desk import Desk
from fss.demo.drawing import BLUE, RED
from fss.demo.look import TO_EDITOR, TO_RESULT, TO_UNDERSTOOD

WAYS = [("Paint it", "paint"), ("Scribble", "scribble"), ("Box", "box"), ("Mask file", "file")]
VIEWS = [("Overlay", "overlay"), ("Mask", "mask"), ("Probability", "probability")]
_QUIET = {"api_visibility": "private", "show_progress": "hidden"}  # options of events: no API, no animation
_ON = {**_QUIET, "show_progress": "minimal"}
_QUICK = {**_QUIET, "trigger_mode": "always_last"}
TILES = [
    ("As the object needs it", "auto"),
    ("Whole photo at once", 0),
    ("Tiles of 1024 px", 1024),
    ("Tiles of 512 px", 512),
]


class Page:
    """Builds the page; `blocks` is what gradio serves.

    Args:
        gr: gradio.
    """

    def __init__(self, gr: ModuleType, acts: Acts) -> None:
        self.gr = gr
        with gr.Blocks(
            title="fss demo", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True
        ) as self.blocks:
            self.desk = gr.State(Desk())  # each visitor gets a copy
            gr.HTML(
                "<h1>Few-shot segmentation</h1><p>Mark a thing in one photo or a few, find it in others. "
                "Nothing leaves this machine.</p>",
                elem_id="head", padding=False,
            )  # fmt: skip
            with gr.Row(equal_height=False):
                self._show_it()
                self._search(acts.models_there(), acts.needed(Desk()))
                self._result()
            self._wire_marking(acts)
            self._wire_searching(acts)

    def _step(self, number: int, title: str, text: str) -> None:
        self.gr.HTML(f'<h2 data-n="{number}">{title}</h2><p>{text}</p>', elem_classes="title", padding=False)

    def _drop(self, text: str, name: str, **more: Any) -> Any:
        return self.gr.File(
            label=text, show_label=False, height=52, elem_id=name, elem_classes="drop", **more
        )

    def _strip(self, name: str) -> Any:
        return self.gr.Gallery(
            show_label=False, columns=4, fit_columns=False, height="auto", allow_preview=False,
            object_fit="cover", buttons=[], elem_id=name, elem_classes="strip",
            visible=False, format="jpeg", interactive=False,
        )  # fmt: skip

    def _show_it(self) -> None:
        gr = self.gr
        with gr.Column(scale=5, min_width=320, elem_classes="step", elem_id="step1"):
            self._step(1, "Show it", "Drop a photo or several, and mark the thing in each.")
            self.drop = self._drop("Photos", "drop-supports", file_count="multiple", file_types=["image"])
            self.editor = gr.ImageEditor(
                show_label=False, sources=(), transforms=(), layers=False, buttons=[], format="png",
                height=370, brush=gr.Brush(colors=[RED, BLUE], default_color=RED, color_mode="fixed",
                default_size=18), eraser=gr.Eraser(default_size=24), elem_id="editor",
                placeholder="Your photo appears here",
            )  # fmt: skip
            self.way = gr.Radio(WAYS, value="paint", label="How to mark", info=HINTS["paint"], elem_id="way")
            self.mask = self._drop("Mask", "drop-mask", visible=False)
            with gr.Row(elem_id="marking"):
                self.name = gr.Textbox(
                    "object", label="Name", max_lines=1, scale=2, min_width=110, elem_id="name"
                )
                self.use = gr.Button("Use it", scale=2, min_width=90, size="md", elem_id="use")
                self.remove = gr.Button("Remove", scale=1, min_width=80, size="md", elem_id="remove")
            self.seen = gr.Image(
                show_label=False, height=300, format="jpeg", buttons=["fullscreen"], elem_id="understood",
                interactive=False, visible=False,
            )  # fmt: skip
            self.how = gr.HTML(elem_id="how", padding=False, visible=False)
            self.next = gr.Button("Mark the next photo", size="md", visible=False, elem_id="next")
            self.strip = self._strip("supports")

    def _search(self, models: list[tuple[str, str]], needed: str) -> None:
        gr = self.gr
        with gr.Column(scale=3, min_width=300, elem_classes="step", elem_id="step2"):
            self._step(2, "Search", "Drop the photos to find it in.")
            self.drop_queries = self._drop(
                "Photos", "drop-queries", file_count="multiple", file_types=["image"]
            )
            self.queries = self._strip("queries")
            self.clear = gr.Button("Remove these photos", visible=False, size="sm", elem_id="clear")
            self.model = gr.Dropdown(
                models, label="Model", info="Choose, or type a checkpoint's path.",
                allow_custom_value=True, elem_id="model",
            )  # fmt: skip
            text = "Tiles find small things in large photos, and take longer."
            self.tile = gr.Dropdown(TILES, value="auto", label="Look at", info=text, elem_id="tile")
            self.needed = gr.HTML(needed, elem_id="needed", padding=False)
            self.run = gr.Button("Segment", variant="primary", elem_id="run")
            self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")

    def _result(self) -> None:
        gr = self.gr
        with gr.Column(scale=5, min_width=320, elem_classes="step", elem_id="step3"):
            self._step(3, "Result", "Slide until it fits; the network is not asked again.")
            self.image = gr.Image(
                show_label=False, height=370, format="jpeg", buttons=["fullscreen"], elem_id="result",
                interactive=False,
            )  # fmt: skip
            self.shares = gr.HTML(elem_id="shares", padding=False)
            self.results = self._strip("results")
            self.threshold = gr.Slider(0.02, 0.98, 0.5, step=0.02, label="Threshold", elem_id="threshold")
            self.view = gr.Radio(VIEWS, value="overlay", show_label=False, elem_id="view")
            self.save = gr.Button("Masks as files", size="md", elem_id="save")
            self.files = gr.File(
                label="At the photos' own sizes", visible=False, interactive=False, file_count="multiple",
                height=170, elem_id="files",
            )  # fmt: skip

    def _wire_marking(self, acts: Acts) -> None:
        """Step 1."""
        self.marking = [self.desk, self.editor, self.way, self.name, self.mask]
        self.around = [self.seen, self.how, self.next, self.strip, self.needed]
        editing = [self.editor, self.way, self.name, self.mask, *self.around]
        now = [self.desk, self.editor, self.way]
        self.drop.upload(
            acts.drop_supports, [self.drop, *now], [self.drop, *editing], show_progress_on=self.drop, **_ON
        )
        self.way.change(acts.hint, self.way, [self.way, self.mask], **_QUICK)
        used = self.use.click(acts.use, self.marking, editing, show_progress_on=self.strip, **_ON)
        used.success(None, js=TO_UNDERSTOOD, api_visibility="private")
        self.next.click(acts.go_on, now, editing, **_QUIET).success(
            None, js=TO_EDITOR, api_visibility="private"
        )
        self.strip.select(acts.selecting(acts.choose_support), now, editing, **_QUIET)
        self.remove.click(acts.remove, [self.desk, self.way], editing, **_QUIET)
        self.editor.clear(acts.wipe, self.desk, self.editor, **_QUIET)

    def _wire_searching(self, acts: Acts) -> None:
        """Steps 2 and 3."""
        gr, looking = self.gr, [self.desk, self.threshold, self.view]
        looked, buttons = [self.image, self.shares, self.files], [self.run, self.stop]
        self.blocks.load(acts.models, None, self.model, **_QUIET)
        self.drop_queries.upload(
            acts.drop_queries, [self.drop_queries, self.desk],
            [self.drop_queries, self.queries, self.clear, self.needed],
            show_progress_on=self.drop_queries, **_ON,
        )  # fmt: skip
        self.clear.click(acts.clear, self.desk, [self.queries, self.clear, self.needed], **_QUIET)

        def segment(*values: Any, progress: Any = gr.Progress()) -> Iterator[Any]:  # noqa: B008
            yield from acts.segment(lambda share, said: progress(share, said), *values)

        running = self.run.click(
            segment, [*self.marking, self.model, self.tile, self.threshold, self.view],
            [*self.around, *looked, self.results, *buttons], show_progress_on=self.image,
            api_visibility="private",
        )  # fmt: skip
        running.success(None, js=TO_RESULT, api_visibility="private")
        running.failure(acts.idle, None, buttons, **_QUIET)
        self.stop.click(acts.idle, None, buttons, cancels=[running], **_QUIET)
        for event in (self.threshold.change, self.view.change):
            event(acts.look, looking, looked, **_QUICK)
        self.results.select(acts.selecting(acts.choose_result), looking, looked, **_QUIET)
        self.save.click(acts.save, [self.desk, self.threshold], self.files, show_progress_on=self.save, **_ON)
