"""`deeplab-tf evaluate`."""

from pathlib import Path

import click

from deeplab_tf.cli.options import chosen, crf_option, inference_options, scored_options
from deeplab_tf.cli.places import check_place
from deeplab_tf.errors import InputError


@click.command(short_help="Score a model on records: IoU per class, warnings, worst pictures.")
@scored_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Also write report.json, a page and a table here.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures.")
@click.option("--no-boundary", is_flag=True, help="Leave boundary IoU out.")
@click.option(
    "--trimap",
    is_flag=True,
    help="Also score bands of 1 to 40 pixels around outlines; --out draws the curve.",
)
@click.option(
    "--crowd",
    type=click.Choice(["segment", "ignore"]),
    default="segment",
    show_default=True,
    help="What crowds count as in panoptic quality: deeplab2's rule, or COCO's.",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write a panoptic model's maps here, in COCO's format, for the official scripts.",
)
@inference_options
@crf_option
def command(model, data, split, out, limit, no_boundary, trimap, crowd, predictions, **options):
    """Score a model at each picture's own size.

    Shows IoU and boundary IoU per class with the share of pixels labelled and predicted, and says
    in words what those numbers would hide: a class that is never predicted, one that isn't in
    the data, an accuracy that is high by background alone. With --out, report.html shows the
    worst pictures. Published scores "with scales and flips" are measured like the last example.
    With --crf the scores are those behind the CRF, and what they were before it is told too. A
    panoptic model also gets PQ, SQ and RQ per class, and the average precision of its instances.

    \b
    Examples:
      deeplab-tf evaluate --model portrait --data RECORDS
      deeplab-tf evaluate --model runs/mine/best --data my_pictures --split test --out scores
      deeplab-tf evaluate --model portrait_int8.tflite --data RECORDS --out scores
      deeplab-tf evaluate --model runs/mine/best --data RECORDS --window 513 --overlap 0.5
      deeplab-tf evaluate --model FOLDER --data RECORDS --crf deeplab_v2_resnet_101 --trimap \\
        --out scores
      deeplab-tf evaluate --model FOLDER --data RECORDS --output-stride 8 --flip \\
        --scales 0.5,0.75,1,1.25,1.5,1.75
    """
    from deeplab_tf.inference.litert import quiet_stderr

    if out:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file; name a folder for the report.")
        check_place(out)
    with quiet_stderr():  # TensorFlow logs on being imported, before it knows its log level
        from deeplab_tf.inference.runner import load_runner
        from deeplab_tf.training.evaluate import evaluate
        from deeplab_tf.training.report import PAGE_FILE, write_report

    worst = 12 if out else 0
    runner = load_runner(model, **chosen(options))
    scores = evaluate(
        runner,
        data,
        split,
        boundary=not no_boundary,
        trimap=trimap,
        worst=worst,
        crowd=crowd,
        predictions=predictions,
        limit=limit,
        progress=True,
    )
    show(scores)
    if out:
        write_report(scores, out)
        click.echo(f"wrote {out}; open {out / PAGE_FILE}")


def show(scores) -> None:
    """Prints the scores as a table, with warnings below."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deeplab_tf.training.report import shown_iou

    console = Console()
    # Not as the table's title: that is cut into lines as narrow as the table, paths too.
    click.echo(f"{scores.model} on {scores.data}, {scores.split}")
    table = Table()
    table.add_column("class")
    for name in ("IoU", "boundary IoU", "of the labels", "of the predictions"):
        table.add_column(name, justify="right")
    for score in scores.classes:
        table.add_row(
            Text(score.name),
            shown_iou(score.iou),
            shown_iou(score.boundary_iou),
            f"{score.pixel_share:.2%}",
            f"{score.predicted_share:.2%}",
        )
    console.print(table)
    lines = [scores.mean_iou_text]
    if scores.mean_boundary_iou is not None:
        lines[0] += f", boundary IoU {scores.mean_boundary_iou:.4f}"
    lines[0] += f", pixel accuracy {scores.pixel_accuracy:.4f}"
    if scores.without_crf is not None:
        lines[0] += f" (mean IoU without the CRF {scores.without_crf:.4f})"
    lines[0] += f"; {len(scores.pictures)} pictures in {scores.seconds:.1f} s"
    if scores.foreground_iou is not None:
        sources = scores.foreground_iou_by_source.items()
        shown = ", ".join(f"{source} {iou:.4f}" for source, iou in sources)
        lines.append(
            f"{scores.classes[1].name} IoU, mean over pictures: "
            f"{scores.foreground_iou:.4f}" + (f" ({shown})" if shown else "")
        )
    if scores.panoptic is not None:
        console.print(panoptic_table(scores.panoptic))
        lines += scores.panoptic.lines
    lines += scores.trimap_lines
    lines += [f"note: {note}" for note in scores.notes]
    lines += [f"warning: {warning}" for warning in scores.warnings]
    for line in lines:
        click.echo(line)


def panoptic_table(scores):
    """Panoptic quality per class, of those that are labelled or predicted."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("segments of")
    for name in ("PQ", "SQ", "RQ", "found", "missed", "invented"):
        table.add_column(name, justify="right")
    for score in scores.classes:
        if score.pq is None:
            continue
        numbers = [f"{value:.4f}" for value in (score.pq, score.sq, score.rq)]
        counts = [str(count) for count in (score.found, score.missed, score.invented)]
        kind = "" if score.is_thing else " (stuff)"
        table.add_row(Text(score.name + kind), *numbers, *counts)
    return table
