"""The look: a Gradio theme over the colours of ui_assets/workbench.css, and where the page's own files lie."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import gradio as gr

ASSETS = Path(__file__).resolve().parents[1] / "ui_assets"
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
_PAGE = ".gradio-container.gradio-container .contain"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_BLOCK = re.compile(r"([^{}]+)\{((?:[^{}]|\{[^{}]*\})*)\}")  # a rule, or one of several rules
_COMMA = re.compile(r",(?![^(]*\))")  # between selectors, and not within :is() or :not()
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """System fonts only, so that nothing is fetched; the accent is the stylesheet's."""
    import gradio as gr

    look = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        spacing_size=gr.themes.sizes.spacing_sm,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_sm,
        font=SANS,
        font_mono=MONO,
    )
    shared = {
        "body_background_fill": "var(--wb-paper)",
        "body_text_color": "var(--wb-ink)",
        "body_text_color_subdued": "var(--wb-muted)",
        "background_fill_primary": "var(--wb-panel)",
        "background_fill_secondary": "var(--wb-paper)",
        "block_background_fill": "var(--wb-panel)",
        "block_border_color": "var(--wb-line)",
        "block_label_text_color": "var(--wb-ink)",
        "block_label_background_fill": "transparent",
        "block_title_text_color": "var(--wb-ink)",
        "block_info_text_color": "var(--wb-muted)",
        "border_color_primary": "var(--wb-line)",
        "input_background_fill": "var(--wb-field)",
        "input_border_color": "var(--wb-edge)",
        "input_border_width": "1px",
        "button_border_width": "1px",
        "input_placeholder_color": "var(--wb-muted)",
        "button_primary_background_fill": "var(--wb-accent)",
        "button_primary_background_fill_hover": "var(--wb-accent-strong)",
        "button_primary_text_color": "var(--wb-on-accent)",
        "button_primary_border_color": "transparent",
        "button_secondary_background_fill": "var(--wb-panel)",
        "button_secondary_background_fill_hover": "var(--wb-paper)",
        "button_secondary_text_color": "var(--wb-ink)",
        "button_secondary_border_color": "var(--wb-edge)",
        "button_cancel_background_fill": "var(--wb-bad)",
        "button_cancel_background_fill_hover": "var(--wb-bad)",
        "button_cancel_text_color": "var(--wb-on-bad)",
        "link_text_color": "var(--wb-accent)",
        "color_accent": "var(--wb-accent)",
        "color_accent_soft": "var(--wb-soft)",
        "table_text_color": "var(--wb-ink)",
        "table_even_background_fill": "var(--wb-panel)",
        "table_odd_background_fill": "var(--wb-paper)",
        "code_background_fill": "var(--wb-paper)",
    }
    known = set(inspect.signature(look.set).parameters)
    dark = {f"{key}_dark": value for key, value in shared.items()}
    return look.set(**shared, **{key: value for key, value in dark.items() if key in known})


def css() -> str:
    """All stylesheets; the engine's figures take their colours from tab-ripples.css."""
    from mygpt2.ripples.plot import STYLE

    return "\n".join(path.read_text(encoding="utf-8") for path in (STYLE, *_assets(".css")))


def style() -> str:
    """All stylesheets as an element of the document, each rule with more weight within the page than Gradio's own.

    Gradio would do the same to what it is given as `css`, in the browser and twice over, before it shows anything.
    """
    return f"<style>{weighty(_COMMENT.sub('', css()))}</style>"


def weighty(rules: str) -> str:
    """A stylesheet without comments whose rules hold anywhere, in the page with the weight of three classes more."""
    return "".join(_rule(found[1].strip(), found[2]) for found in _BLOCK.finditer(rules))


def _rule(head: str, body: str) -> str:
    if head.startswith("@media"):
        body = weighty(body)
    elif not head.startswith("@"):
        head = ", ".join(f"{one}, {_in_page(one)}" for one in map(str.strip, _COMMA.split(head)))
    return f"{head}{{{body}}}"


def _in_page(selector: str) -> str:
    dark, rest = (".dark ", selector.replace(".dark", "", 1)) if ".dark" in selector else ("", selector)
    return f"{dark}{_PAGE} {rest.strip()}".strip()


def head() -> str:
    """The page's own scripts, inlined: no request, and no file of this folder has to be served."""
    return "".join(f"<script>{path.read_text(encoding='utf-8')}</script>\n" for path in _assets(".js"))


def icon() -> str:
    """What a document's head says of its looks."""
    drawn = (ASSETS / "icon.svg").read_text(encoding="utf-8")
    return (
        f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,{quote(drawn)}">'
        '<meta name="color-scheme" content="light dark">'
    )


def colours(selector: str = ":root", *, choice: bool = False) -> str:
    """The colours of workbench.css for what is shown before or without it, light or dark as the system is.

    choice: unless data-wb-theme of the document's root says which one was chosen on the page, see opening.js.
    """
    rules = asset("workbench.css")
    light, dark = (re.search(rf"^{name} {{(.*?)}}", rules, re.M | re.S) for name in (":root", r"\.dark"))
    assert light and dark
    made = f"{selector} {{{light[1]}}} @media (prefers-color-scheme: dark) {{ {selector} {{{dark[1]}}} }}"
    both = (("light", light), ("dark", dark)) if choice else ()
    return made + "".join(f" [data-wb-theme={name}] {selector} {{{found[1]}}}" for name, found in both)


def asset(name: str) -> str:
    """One of the page's own files."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _assets(suffix: str) -> list[Path]:
    """workbench.* first: the others build on its colours and functions. chart.js is loaded by the chart itself."""
    styles, scripts = (
        ["workbench.css", "pieces.css", "bar.css", "chart.css", "picker.css"],
        ["workbench.js", "early.js", "pieces.js", "tablist.js", "changes.js", "live.js", "turns.js", "picker.js"],
    )
    shared = styles if suffix == ".css" else scripts
    return [*(ASSETS / name for name in shared), *sorted(ASSETS.glob(f"tab-*{suffix}"))]
