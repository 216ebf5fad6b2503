"""Looks of the page: one accent, a typeface that is whole, contrast that can be read."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils.fonts import LocalFont

STYLE = Path(__file__).parent / "static" / "style.css"


def theme() -> gr.themes.Base:
    """Slate and indigo. Most typefaces that come along lack letters; these two are whole."""
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "monospace"],
        spacing_size="sm",
        radius_size="md",
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0b1020",
        block_background_fill="white",
        block_background_fill_dark="#131a2e",
        body_text_color_subdued="#475569",
        body_text_color_subdued_dark="#a3b1c6",
        block_info_text_color="#475569",
        block_info_text_color_dark="#a3b1c6",
        block_title_text_weight="700",
        button_primary_background_fill="#4f46e5",
        button_primary_background_fill_hover="#4338ca",
        button_primary_background_fill_dark="#4f46e5",
        button_primary_text_color="white",
        border_color_primary="#dbe2ea",
        border_color_primary_dark="#2a3450",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="#dbe2ea",
        input_border_color_dark="#2a3450",
        input_background_fill="white",
        input_background_fill_dark="#0f1628",
    )
