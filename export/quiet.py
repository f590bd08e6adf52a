"""Holds back what native code prints."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


class Printed:
    """What was held back; filled when the block has ended."""

    text = ""


@contextlib.contextmanager
def quiet() -> Iterator[Printed]:
    """Sends stdout and stderr of the whole process to nowhere while the block runs.

    The converter and the LiteRT delegates write from C++, past `sys.stdout`: only the file
    descriptors themselves stop them. The text is kept for error messages.
    """
    printed = Printed()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as sink:
        try:
            for number, _ in kept:
                os.dup2(sink.fileno(), number)
            with (
                # Python's own streams need not be on the descriptors, as in a notebook.
                contextlib.redirect_stdout(sink),
                contextlib.redirect_stderr(sink),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield printed
        finally:
            sink.flush()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
            sink.seek(0)
            printed.text = sink.read()
