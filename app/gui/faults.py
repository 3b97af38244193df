"""What a person is told when something goes wrong: our sentence, and nothing of the machine."""

import contextlib
import logging
import re
from collections.abc import Iterator

import gradio as gr

from operators.errors import PreimageError

_log = logging.getLogger(__name__)


def plain(error: BaseException) -> str:
    """The sentence of an error without folders of this machine."""
    if not isinstance(error, PreimageError):
        return f"Something unforeseen went wrong ({type(error).__name__}); the server's log says where."
    return re.sub(r"(?<![\w.:])/(?:[^\s/'\",;]+/)+", "", " ".join(str(error).split()))


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
