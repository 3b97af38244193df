"""What all widgets of the page have in common: a JavaScript module that fills the element of a `gr.HTML`."""

from typing import Any, ClassVar

import gradio as gr
from gradio import component_meta

# Gradio writes a .pyi file beside the module of every component class, also into an installed package.
component_meta.create_or_modify_pyi = lambda component_class, class_name, events: None


class Widget(gr.HTML):
    """A widget whose inside belongs to the module `static/{module}.js`.

    The module exports `mount(element, {props, trigger, watch, upload})`. `props.value` is what Python gets as the
    widget's value and must be taken for hostile there; the other props travel from Python to the browser only.
    `signals` are the names that the module may pass to `trigger`; each is a Gradio listener of the widget.
    """

    module: ClassVar[str]
    signals: ClassVar[tuple[str, ...]] = ("change",)

    def __init__(self, value: Any = None, **settings: Any) -> None:
        # Gradio makes a listener for each name that is quoted in the script.
        names = ", ".join(f"'{name}'" for name in self.signals)
        script = (
            f"const signals = [{names}]; import(new URL('static/{self.module}.js', document.baseURI).href)"
            ".then(module => module.mount(element, {props, trigger, watch, upload, signals}));"
        )
        super().__init__(value, html_template="", js_on_load=script, apply_default_css=False, **settings)

    def postprocess(self, value: Any) -> Any:
        """Values are JSON."""
        return value

    def api_info(self) -> dict[str, Any]:
        """Any JSON."""
        return {"type": {}, "description": "JSON"}
