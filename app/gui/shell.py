"""The page: a header, six tabs, and what they share."""

import os
from pathlib import Path

import gradio as gr
import torch

from app.desk import Desk, device_here
from app.gui import batch_tab, compare, endpoints, help_tab, jobs_tab, medical, restore


def device_line() -> str:
    """What restores here, in words."""
    if device_here() == "cuda":
        found = torch.cuda.get_device_properties(0)
        return f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
    return f"CPU, {os.cpu_count()} cores"


def make_page(desk: Desk) -> gr.Blocks:
    """The whole page over the jobs of a server."""
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    page: gr.Blocks
    with gr.Blocks(title="Preimage", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        gr.HTML(
            '<header id="pi-header"><h1>Preimage</h1>'
            "<span>Samples of the images that could have made your measurement</span>"
            f"<span>{device_line()}</span><span>Data stays on this machine</span>"
            "<span>Research use only</span></header>"
            '<div id="pi-running"></div>',
            elem_id="header",
        )
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Restore", id="restore", elem_id="restore-tab"):
                restore.build(desk, cache)
            with gr.Tab("Medical", id="medical", elem_id="medical-tab"):
                medical.build(desk, cache)
            with gr.Tab("Compare", id="compare", elem_id="compare-tab"):
                compare.build(desk)
            with gr.Tab("Batch", id="batch", elem_id="batch-tab"):
                batch_tab.build(desk)
            with gr.Tab("Jobs", id="jobs", elem_id="jobs-tab"):
                jobs_tab.build(desk)
            with gr.Tab("Help", id="help", elem_id="help-tab"):
                help_tab.build(desk)
        endpoints.build(desk, cache)
    page.queue(default_concurrency_limit=8)
    return page
