"""How the page looks: colours of at least 4.5 to 1 on their ground, light and dark, and no font from elsewhere."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors

_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"]

THEME = gr.themes.Base(
    primary_hue=colors.teal, secondary_hue=colors.teal, neutral_hue=colors.slate, font=_FONT, font_mono=_MONO
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="#0d1420",
    body_text_color="#15202e",
    body_text_color_dark="#e8edf4",
    body_text_color_subdued="#475569",
    body_text_color_subdued_dark="#a9b6c8",
    background_fill_primary="#ffffff",
    background_fill_primary_dark="#131c2b",
    background_fill_secondary="#f1f5f9",
    background_fill_secondary_dark="#1a2537",
    block_background_fill="#ffffff",
    block_background_fill_dark="#131c2b",
    block_label_text_color="#334155",
    block_label_text_color_dark="#cbd5e1",
    block_title_text_color="#15202e",
    block_title_text_color_dark="#e8edf4",
    block_info_text_color="#475569",
    block_info_text_color_dark="#a9b6c8",
    border_color_primary="#cbd5e1",
    border_color_primary_dark="#344256",
    color_accent="#0f766e",
    link_text_color="#0f5f59",
    link_text_color_dark="#5eead4",
    link_text_color_hover="#134e4a",
    link_text_color_hover_dark="#99f6e4",
    link_text_color_visited="#0f5f59",
    link_text_color_visited_dark="#5eead4",
    button_primary_background_fill="#0f766e",
    button_primary_background_fill_hover="#115e59",
    button_primary_background_fill_dark="#0f766e",
    button_primary_background_fill_hover_dark="#13857b",
    button_primary_text_color="#ffffff",
    button_primary_text_color_dark="#ffffff",
    button_secondary_background_fill="#e2e8f0",
    button_secondary_background_fill_hover="#cbd5e1",
    button_secondary_background_fill_dark="#243146",
    button_secondary_background_fill_hover_dark="#31415a",
    button_secondary_text_color="#15202e",
    button_secondary_text_color_dark="#e8edf4",
    error_text_color="#b42318",
    error_text_color_dark="#fda29b",
    block_radius="10px",
    container_radius="10px",
    button_large_radius="8px",
    button_small_radius="6px",
    input_radius="6px",
)
"""Teal on slate; Gradio's own orange and indigo are too pale for small text."""

CSS = """
:root .dark { --color-accent: #2dd4bf; }
.gradio-container { max-width: 1500px !important; margin: 0 auto; }
#pi-header { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; padding: 2px 0 4px; }
#pi-header h1 { font-size: 1.35rem; font-weight: 700; margin: 0; letter-spacing: -0.01em; }
#pi-header span { color: var(--body-text-color-subdued); font-size: 0.9rem; }
:root .pi-step { font-size: 1.05rem; font-weight: 650; margin: 4px 0 0; }
:root .pi-left { gap: 8px; }
@media (min-width: 900px) {
  /* the result stays in sight while somebody scrolls through the settings */
  :root .pi-right { position: sticky; top: 8px; align-self: flex-start; }
}
:root .pi-left .html-container { padding: 0; }
:root .pi-facts, :root .pi-reason { color: var(--body-text-color-subdued); min-height: 1.4em; margin: 0; }
:root .pi-fault.pi-fault { color: var(--error-text-color); }
:root .pi-looking .pi-painter-bar, :root .pi-looking .pi-painter-details, :root .pi-looking .pi-painter-painted,
:root .pi-looking .pi-painter-word { display: none; }
:root .pi-looking .pi-painter canvas { pointer-events: none; }
.pi-samples button { min-width: 72px; }
footer { display: none !important; }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
@media (max-width: 640px) { .gradio-container { padding: 6px !important; } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""

_STATIC = sorted(path.name for path in Path(__file__).with_name("static").iterdir())

HEAD = (
    """
<meta name="description" content="Images that could have made a measurement. Research use only.">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect \
width='16' height='16' rx='3' fill='%230f766e'/%3E%3Cpath d='M5 13V3h4a3 3 0 0 1 0 6H5' fill='none' stroke='white' \
stroke-width='2'/%3E%3C/svg%3E">
"""
    # at once, so that nothing is shown unstyled
    + "".join(f'<link rel="stylesheet" href="static/{name}">' for name in _STATIC if name.endswith(".css"))
    + '<script type="module" src="static/shell.js"></script>'
)
