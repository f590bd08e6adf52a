"""Scalars and pictures for TensorBoard, written without TensorFlow, so on every backend."""

import io
import time
from pathlib import Path

import numpy as np
from PIL import Image


class Board:
    """An event file in a folder. Several in one folder are one run to TensorBoard.

    Args:
        folder: where to.
        first_step: of a resumed run; what an earlier file has of later steps is left out then.

    Raises:
        ImportError: TensorBoard isn't installed.
    """

    def __init__(self, folder: Path, first_step: int = 0):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))
        if first_step:
            start = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=first_step + 1, session_log=start)
            self._writer.add_event(event)
            self._writer.flush()

    @classmethod
    def open(cls, folder: Path, first_step: int = 0) -> "Board | None":
        """A board if TensorBoard is installed, else None."""
        try:
            return cls(folder, first_step)
        except ImportError:
            return None

    def write(
        self, step: int, scalars: dict[str, float], pictures: dict[str, np.ndarray] | None = None
    ) -> None:
        """Adds values by tag, and pictures uint8 [H, W, 3] by tag; on disk when it returns."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        for tag, picture in (pictures or {}).items():
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            height, width = picture.shape[:2]
            image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=file.getvalue()
            )
            values.append(Summary.Value(tag=tag, image=image))
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
