"""The look of the page: colours, sizes, fonts of the system. Nothing is fetched from elsewhere."""

from types import ModuleType
from typing import Any

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: 1500px !important; }
.gradio-container .fillable { padding: 12px 20px 20px !important; }
.gradio-container main { padding: 0 !important; gap: 14px !important; }
@media (max-width: 640px) { .gradio-container .fillable { padding: 8px !important; } }
#head .html-container, .title .html-container, #shares .html-container, #how .html-container,
#needed .html-container { padding: 0 !important; }
#head h1 { font-size: 1.4rem; margin: 0; }
#head p { margin: 2px 0 0; color: var(--body-text-color-subdued); }
.step { background: var(--block-background-fill); border: 1px solid var(--border-color-primary);
  border-radius: 12px; padding: 14px !important; gap: 10px !important; align-self: flex-start; }
.step .form { border: 0; gap: 10px; background: none; box-shadow: none; }
.step .form > .block { padding: 0; }
.title h2 { font-size: 1.05rem; margin: 0; display: flex; align-items: center; gap: 8px; }
.title h2::before { content: attr(data-n); background: var(--color-accent); color: white; width: 1.6em;
  height: 1.6em; border-radius: 50%; display: inline-grid; place-items: center; font-size: .85em; }
.title p { margin: 4px 0 0; font-size: .9rem; color: var(--body-text-color-subdued); }
.drop { border: 1.5px dashed var(--border-color-accent) !important; border-radius: 8px !important; }
.drop .wrap { font-size: 0 !important; line-height: 0 !important;
  padding: 0 !important; min-height: 0 !important; }
.drop .wrap * { display: none; }
.drop .wrap::before { content: "Drop photos here, or click"; font-size: .92rem; line-height: 1.4; }
#drop-mask .wrap::before { content: "Drop a mask (PNG), or click"; }
.strip .gallery-container { height: auto !important; }
.strip .grid-wrap { min-height: 0 !important; max-height: 158px !important; padding: 6px !important; }
.strip .grid-container { gap: 6px !important; padding: 0 !important;
  grid-template: none / repeat(auto-fill, minmax(64px, 76px)) !important; grid-auto-rows: auto !important; }
.strip .thumbnail-item { aspect-ratio: 1; height: auto; }
.strip .caption-label { font-size: .72rem; padding: 1px 5px; max-width: 100%; }
#way .wrap, #view .wrap { gap: 6px; }
#way label, #view label { padding: 5px 10px; font-size: .92rem; }
#way .wrap input, #view .wrap input { display: none; }
#way label span, #view label span { margin-left: 0; }
#way .wrap label.selected, #view .wrap label.selected { background: var(--color-accent); color: white; }
#model input, #tile input { text-overflow: ellipsis; padding-right: 14px; }
#marking { align-items: flex-end; }
#marking { flex-wrap: nowrap; }
#marking > * { min-width: 0 !important; }
#marking #remove { min-width: 84px !important; padding-inline: 6px; }
#editor, #result { min-height: 0; }
#result img, #understood img { width: 100% !important; height: 100% !important;
  object-fit: contain !important; }
@media (max-width: 640px) {
  #way label { padding: 5px 7px; font-size: .88rem; }
  #result, #understood { height: 260px !important; }
}
.note { margin: 0; font-size: .92rem; color: var(--body-text-color); }
#needed .note { border-left: 3px solid var(--color-accent); padding-left: 8px; }
.names { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .95rem; min-height: 1.4em; }
.names i { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .4em; }
footer { display: none !important; }
"""

# On a phone the result is far below the button.
TO_RESULT = (
    "() => { if (innerWidth < 800) document.getElementById('result')?.scrollIntoView({behavior: 'smooth'}) }"
)
# A mask that was made is looked at, though it may lie below what the window shows.
TO_UNDERSTOOD = (
    "() => document.getElementById('supports')?.scrollIntoView({block: 'nearest', behavior: 'smooth'})"
)
TO_EDITOR = "() => document.getElementById('editor')?.scrollIntoView({block: 'nearest', behavior: 'smooth'})"


def theme(gr: ModuleType) -> Any:
    """Gradio's plain theme in the system's fonts, all text at a contrast of 4.5 or more (WCAG 2.2, 1.4.3)."""
    plain = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO)
    return plain.set(
        body_text_color_subdued="*neutral_600", input_placeholder_color="*neutral_600",
        body_text_color_subdued_dark="*neutral_300", input_placeholder_color_dark="*neutral_300",
        color_accent="*primary_600", button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700", button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
    )  # fmt: skip
