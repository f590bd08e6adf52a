"""`deeplab-tf demo`: from a photo to an int8 file and back, offline, with what ships."""

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from deeplab_tf.errors import InputError

PRESET = "portrait"
SHEET = "contact_sheet.jpg"
# Views of the pictures to measure value ranges on, and rows of the sheet: both enough to see.
_VIEWS = 64
_ROWS = 8
# Calibration looks at pictures shrunk to this longest side; the model wants less still.
_LONGEST_SIDE = 640
_TILE = 220
_DIFFERENT = (230, 30, 30)


@click.command(short_help="See what it does: segment, export to int8, compare; offline.")
@click.argument("pictures", nargs=-1, metavar="[PICTURE...]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where results go.",
)
def command(pictures, out):
    """Segment a photo with the shipped model, then do the same in int8.

    The photo comes with matplotlib; pictures, folders or patterns that you name join it. Mask,
    overlay, cut-out and blur of each are written, an int8 TFLite file of the model is exported,
    compared with the model and run with LiteRT, and all of it is put on one sheet. No network
    is needed.

    \b
    Examples:
      deeplab-tf demo
      deeplab-tf demo me.jpg "holiday/*.jpg" --out results
    """
    from rich.console import Console

    jobs = _find(pictures, out)
    console = Console(highlight=False, soft_wrap=True)
    steps = _Steps(console, 4)
    with steps("opening the portrait model"):
        from deeplab_tf.inference.litert import quiet_stderr

        with quiet_stderr():  # TensorFlow logs on being imported, before it knows its log level
            from deeplab_tf.inference.runner import KerasRunner
            from deeplab_tf.models.presets import from_preset

        model = from_preset(PRESET)
        runner = KerasRunner(model, name=PRESET)
    with steps(f"segmenting {len(jobs)} {'picture' if len(jobs) == 1 else 'pictures'}"):
        shown = [_segment(runner, job) for job in jobs]
    lite_path = out / f"{PRESET}_int8.tflite"
    with steps("exporting to int8 TFLite and comparing it with the model"):
        report = _export(model, [job.path for job in jobs], lite_path)
    with steps("running the int8 file with LiteRT"):
        agreement = _run_lite(lite_path, jobs, shown)
        _write_sheet(out, shown, report)
    _say(console, model, jobs, shown, agreement, report)
    _say_next(console, out, lite_path)


@dataclasses.dataclass(frozen=True)
class _Job:
    """A picture, and where and under which name its results go."""

    path: Path
    place: Path
    name: str


@dataclasses.dataclass
class _Shown:
    """What is kept of a picture once its files are written: the model's labels, small tiles."""

    labels: np.ndarray
    shares: dict[str, float]
    tiles: list[tuple[str, np.ndarray]]


class _Steps:
    """Numbered lines of what is going on, with a spinner where there is a terminal."""

    def __init__(self, console, total: int):
        self._console, self._total, self._number = console, total, 0

    @contextlib.contextmanager
    def __call__(self, text: str) -> Iterator[None]:
        self._number += 1
        line = f"{self._number}/{self._total}  {text}"
        before = time.perf_counter()
        with self._console.status(line):
            yield
        self._console.print(f"{line}  {time.perf_counter() - before:.1f} s", markup=False)


def _find(sources: Sequence[str], out: Path) -> list[_Job]:
    """The sample photo and what the user named, each read once: nothing is written if one fails."""
    from matplotlib.cbook import get_sample_data

    from deeplab_tf.cli.predict import find_pictures
    from deeplab_tf.pictures import open_image

    sample = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    found, mistakes = find_pictures([sample, *sources], out)
    if mistakes:
        raise InputError("\n".join(mistakes))
    for path, _, _ in found:
        open_image(path)
    return [_Job(*entry) for entry in found]


def _segment(runner, job: _Job) -> _Shown:
    """Writes the four results of a picture with the float model."""
    from deeplab_tf.inference.segment import segment
    from deeplab_tf.pictures import colorize

    result = dataclasses.replace(segment(runner, job.path), name=job.name)
    result.save(job.place)
    tiles = [
        (job.name, _small(result.image)),
        ("mask", _small(colorize(result.labels, result.colors))),
        ("overlay", _small(result.overlay())),
        ("cut-out", _small(result.cut_out())),
        ("blur", _small(result.blur())),
    ]
    return _Shown(result.labels, result.shares, tiles)


def _export(model, paths: list[Path], out: Path) -> dict:
    """Writes the int8 file; value ranges come from the pictures and from views of them."""
    from deeplab_tf.export import VerificationError, export_model, views
    from deeplab_tf.pictures import read_image

    calibration = []
    each = max(1, _VIEWS // len(paths))
    for index, path in enumerate(paths[:_VIEWS]):
        photo = _small(read_image(path), _LONGEST_SIDE)
        calibration += [photo, *views(photo, each, seed=index)]
    try:
        return export_model(model, out, quantize="int8", calibration=calibration)
    except VerificationError as error:
        click.echo(f"failed: {error} No {out.name} was written.", err=True)
        sys.exit(1)


def _run_lite(path: Path, jobs: list[_Job], shown: list[_Shown]) -> list[float]:
    """Adds a tile of what the int8 file gives; returns the share of equal pixels by picture."""
    from deeplab_tf.inference.litert import LiteRTRunner
    from deeplab_tf.inference.segment import segment

    runner, agreement = LiteRTRunner(path), []
    for job, one in zip(jobs, shown, strict=True):
        result = segment(runner, job.path)
        different = result.labels != one.labels
        agreement.append(1 - float(different.mean()))
        picture = result.overlay()
        picture[different] = _DIFFERENT
        one.tiles.append((f"int8: {agreement[-1]:.2%} the same", _small(picture)))
    return agreement


def _write_sheet(out: Path, shown: list[_Shown], report: dict) -> None:
    from deeplab_tf.pictures import contact_sheet, save_image

    tiles = [tile for one in shown[:_ROWS] for tile in one.tiles]
    height, width = report["size"]
    sheet = contact_sheet(
        tiles,
        len(shown[0].tiles),
        title=f"deeplab-tf demo: {PRESET}",
        subtitle=f"{report['parameters']:,} parameters, {height}x{width}, "
        f"int8 file of {report['bytes'] / 1000:.0f} kB; last column: int8, in red where it "
        "differs from the model",
        width=_TILE,
    )
    save_image(out / SHEET, sheet)


def _small(picture: np.ndarray, side: int = 2 * _TILE) -> np.ndarray:
    """[H, W, C], shrunk if a side is longer."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    return np.array(image)


def _say(console, model, jobs, shown, agreement, report) -> None:
    """Two tables: the pictures, and the model beside its int8 file."""
    from rich.markup import escape
    from rich.table import Table

    from deeplab_tf.export.timing import measure_model

    table = Table("picture", "what is in it", "int8 agrees in")
    for job, one, share in zip(jobs, shown, agreement, strict=True):
        found = ", ".join(f"{name} {part:.1%}" for name, part in one.shares.items())
        table.add_row(escape(job.name), escape(found), f"{share:.2%} of the pixels")
    console.print(table)
    size = (report["size"][0], report["size"][1])
    whole = measure_model(model, size=size, seconds=0.5)
    table = Table("", "size", "one picture on this machine")
    table.add_row(
        "model in Keras, float32",
        f"{whole['bytes'] / 1000:.0f} kB",
        f"{whole['latency_ms']['all']:.1f} ms",
    )
    latency = ", ".join(
        f"{ms:.1f} ms ({threads} thread{'' if threads == '1' else 's'})"
        for threads, ms in report["latency_ms"].items()
    )
    table.add_row("int8 TFLite", f"{report['bytes'] / 1000:.0f} kB", latency)
    console.print(table)
    console.print(
        f"agreement  {report['agreement']:.2%} of the pixels on {report['pictures']} views that "
        "were held out from calibration"
    )


def _say_next(console, out: Path, lite_path: Path) -> None:
    lines = (
        f"look at    {out / SHEET}",
        "next       deeplab-tf predict your_photo.jpg",
        f"           deeplab-tf predict --tflite {shlex.quote(str(lite_path))} your_photo.jpg",
        "           deeplab-tf data build my_pictures --out records    train on your own:",
        "           deeplab-tf train --config portrait data=records --run runs/mine",
    )
    for line in lines:
        console.print(line, markup=False)
