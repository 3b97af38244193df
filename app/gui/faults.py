"""What a person is told when something goes wrong: our sentence, and nothing of the machine."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from operators.errors import PreimageError

_log = logging.getLogger(__name__)


def plain(error: BaseException) -> str:
    """The sentence of an error without folders of this machine."""
    if not isinstance(error, PreimageError):
        return f"Something unforeseen went wrong ({type(error).__name__}); the server's log says where."
    text = " ".join(str(error).split())
    if uploads := os.environ.get("GRADIO_TEMP_DIR"):  # first, as the store's folder may have a name with spaces
        text = re.sub(re.escape(str(Path(uploads).parents[1])) + r"/(?:[^\s/'\",;]+/)*", "", text)
    return re.sub(r"(?<![\w.:])/(?:[^\s/'\",;]+/)+", "", text)


@contextlib.contextmanager
def as_sentence() -> Iterator[None]:
    """Every error in the block reaches the browser as one sentence."""
    try:
        yield
    except gr.Error:
        raise
    except PreimageError as error:
        raise gr.Error(plain(error), print_exception=False) from None
    except Exception as error:
        _log.exception("a handler of the page failed")
        raise gr.Error(plain(error), print_exception=False) from None
