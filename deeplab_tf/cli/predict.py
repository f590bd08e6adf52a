"""`deeplab-tf predict`."""

import glob
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from deeplab_tf.cli.options import chosen, crf_option, inference_options
from deeplab_tf.cli.places import check_place
from deeplab_tf.errors import InputError


@click.command(short_help="Segment pictures: label map, overlay, cut-out, background blur.")
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@click.option(
    "--model",
    metavar="PRESET|FOLDER|FILE",
    help="A preset's name, a folder from train, convert or export, or a .tflite.  [portrait]",
)
@click.option("--tflite", metavar="FILE", help="The same as --model FILE.tflite.")
@click.option("--fast", is_flag=True, help="Take the .tflite file in the preset's folder.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("predictions"),
    show_default=True,
    help="Where results go.",
)
@click.option("--what", metavar="LIST", help="Some of mask,overlay,cutout,blur,panoptic.  [all]")
@click.option(
    "--classes", metavar="LIST", help="What to cut out: names or values.  [all but background]"
)
@click.option(
    "--explain",
    is_flag=True,
    help="Of MaX- and kMaX-DeepLab: NAME_explained.png shows the strongest masks.",
)
@inference_options
@crf_option
def command(pictures, model, tflite, fast, out, what, classes, explain, **options):
    """Segment pictures, folders of pictures, or patterns such as "*.jpg".

    Every picture gives NAME_mask.png (class values under a palette), NAME_overlay.jpg,
    NAME_cutout.png (with transparency) and NAME_blur.jpg, all at its own size. A panoptic model
    outlines each instance in the overlay, and gives NAME_panoptic.png (segment ids, coded as in
    COCO's files) with NAME_panoptic.json (class, area, box and score of each). With --explain a
    mask transformer shows what it saw: the masks of its strongest slots, and of kMaX-DeepLab how
    pixels were assigned to clusters, step by step. A .tflite file
    answers within a second, since TensorFlow isn't loaded for it; --fast takes the one that
    comes with the preset, a little less exact than the preset itself.

    A model of fixed size sees a large picture shrunk. With --window it sees it in parts at full
    resolution, in memory that doesn't grow with the picture. --scales and --flip cost time for
    finer edges, and so does --crf, which moves edges to where colours change.

    A picture that can't be read is reported and the rest is done; the exit code is then 1, or 2
    if there was none that could.

    \b
    Examples:
      deeplab-tf predict photo.jpg
      deeplab-tf predict --fast photos/ --what cutout
      deeplab-tf predict --model runs/mine/best "holiday/*.jpg" --out results
      deeplab-tf predict --tflite model.tflite photo.jpg
      deeplab-tf predict --model runs/mine/best aerial.tif --window 513 --overlap 0.5
      deeplab-tf predict --model runs/mine/best photo.jpg --scales 0.5,1,1.75 --flip
      deeplab-tf predict --model runs/mine/best photo.jpg --crf deeplab_v2_resnet_101
    """
    from deeplab_tf.inference.segment import OUTPUTS

    wanted = _listed(what)
    for kind in wanted or ():
        if kind not in OUTPUTS:
            raise InputError(f"--what {kind}: there are {', '.join(OUTPUTS)}.")
    jobs, mistakes = find_pictures(pictures, out)
    for mistake in mistakes:
        click.echo(f"error: {mistake}", err=True)
    done = 0
    if jobs:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file; name a folder for the results.")
        check_place(out)
        runner = _runner(model, tflite, fast, chosen(options))
        if explain:
            from deeplab_tf.inference.explain import mask_transformer_of

            mask_transformer_of(runner)  # before anything is written
        done = _segment_all(runner, jobs, wanted, _listed(classes), explain)
    failed = len(mistakes) + len(jobs) - done
    if len(jobs) + len(mistakes) > 1:
        click.echo(f"{done} pictures done, {failed} not; results are in {out}")
    if failed:
        click.get_current_context().exit(1 if done else 2)


def _listed(text: str | None) -> list[str] | None:
    """ "a, b" -> ["a", "b"]."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else None


def _runner(model: str | None, tflite: str | None, fast: bool, options: dict[str, Any]):
    from deeplab_tf.inference.runner import lite_file_of, load_runner

    if model is not None and tflite:
        raise InputError("give either --model or --tflite.")
    if tflite:
        from deeplab_tf.inference.litert import LiteRTRunner

        return load_runner(LiteRTRunner(tflite), **options)
    model = "portrait" if model is None else model
    if fast and not model.endswith(".tflite"):
        lite = lite_file_of(model)
        if lite is None:
            raise InputError(
                f"--fast: {model} has no .tflite file in its folder. Write one and name it: "
                f"deeplab-tf export --model {model} --out fast.tflite, then --tflite fast.tflite"
            )
        model = str(lite)
    return load_runner(model, **options)


def find_pictures(
    sources: Sequence[str], out: Path
) -> tuple[list[tuple[Path, Path, str]], list[str]]:
    """Expands files, folders and patterns.

    Args:
        sources: as the user gave them.
        out: results go there; what lies in it is no source.

    Returns:
        (picture, folder for its results, name of its results) for each, and what went wrong.
    """
    found: list[tuple[Path, Path]] = []
    mistakes = []
    for source in sources:
        paths = _expand(source, out)
        if not paths:
            kind = "no pictures in there" if Path(source).is_dir() else "no such picture"
            mistakes.append(f"{source}: {kind}.")
        found += paths
    jobs, taken = [], set()
    for path, place in dict.fromkeys(found):
        # photo.jpg and photo.png would overwrite each other's results.
        name, number = path.stem, 2
        while (place, name) in taken:
            name, number = f"{path.stem}-{number}", number + 1
        taken.add((place, name))
        jobs.append((path, place, name))
    return jobs, mistakes


def _expand(source: str, out: Path) -> list[tuple[Path, Path]]:
    """(picture, folder for its results) of one argument. Folders keep their inner structure."""
    from deeplab_tf.pictures import is_image

    path = Path(source)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file() and is_image(p))
        own = out.resolve()
        return [
            (p, out / p.parent.relative_to(path))
            for p in inside
            if own == path.resolve() or not p.resolve().is_relative_to(own)
        ]
    if path.exists():
        return [(path, out)]
    matches = (Path(p) for p in sorted(glob.glob(source, recursive=True)))
    return [(p, out) for p in matches if p.is_file() and is_image(p)]


def _segment_all(runner, jobs, wanted, classes, explain: bool) -> int:
    """Writes the results of every picture; returns how many there were."""
    import dataclasses

    from deeplab_tf.inference.segment import segment

    done = 0
    with _progress(len(jobs), runner) as advance:
        for path, place, name in jobs:
            try:
                result = dataclasses.replace(segment(runner, path), name=name)
                written = result.save(place, wanted, classes)
                if explain:
                    written.append(_explain(runner, result, place))
            except InputError as error:
                click.echo(f"error: {error}", err=True)
            else:
                done += 1
                if len(jobs) == 1:
                    shares = [f"{what} {share:.1%}" for what, share in result.shares.items()]
                    click.echo(f"{path}: {', '.join(shares[:5])}{_instances(result)}")
                    for file in written:
                        click.echo(f"  {file}")
            advance()
    return done


def _explain(runner, result, place: Path) -> Path:
    """Writes the page of what a model saw, and says where."""
    from deeplab_tf.inference.explain import explain
    from deeplab_tf.pictures import save_image

    path = place / f"{result.name}_explained.png"
    save_image(path, explain(runner, result.image))
    return path


def _instances(result) -> str:
    """How many there are, in words."""
    if not result.is_panoptic:
        return ""
    count = sum(segment.instance is not None for segment in result.segments)
    return f"; {count} instance{'' if count == 1 else 's'}"


def _progress(total: int, runner):
    """A context that yields a function to call after each picture.

    It shows a bar if there are many, and another one for the windows of a picture.
    """
    import contextlib

    windows = hasattr(runner, "on_window")
    # Where nobody watches, a bar would leave an empty line among the errors.
    if (total < 2 and not windows) or not sys.stderr.isatty():
        return contextlib.nullcontext(lambda: None)

    @contextlib.contextmanager
    def bar():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            pictures = progress.add_task("segmenting", total=total, visible=total > 1)
            if windows:
                parts = progress.add_task("windows", visible=False)

                def show(done: int, count: int) -> None:
                    progress.update(parts, completed=done, total=count, visible=count > 1)

                runner.on_window = show
            yield lambda: progress.advance(pictures)

    return bar()
