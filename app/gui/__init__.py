"""The page: a Gradio shell around widgets of our own, which look at jobs through the HTTP API."""
