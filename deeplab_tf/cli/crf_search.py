"""`deeplab-tf crf-search`."""

import sys
from pathlib import Path

import click

from deeplab_tf.cli.options import Numbers, chosen, inference_options, scored_options
from deeplab_tf.cli.places import check_place
from deeplab_tf.errors import InputError

_SHOWN = 10


@click.command(short_help="Search the CRF's parameters for a model on validation pictures.")
@scored_options
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="Only the first N pictures.",
)
@click.option(
    "--start",
    metavar="NAME|FILE",
    help="What isn't searched, as for evaluate --crf: a name or a file of this command.  "
    "[w2 3, sigma_gamma 3, 10 iterations]",
)
@click.option("--w1", type=Numbers(), metavar="LIST", help="Weights to try.  [5,6,7,8,9,10]")
@click.option(
    "--sigma-alpha",
    type=Numbers(),
    metavar="LIST",
    help="Widths in pixels to try.  [50,60,70,80,90,100]",
)
@click.option(
    "--sigma-beta",
    type=Numbers(),
    metavar="LIST",
    help="Widths in colour levels to try.  [3,4,5,6,7,8,9,10]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    metavar="N",
    help="Each around the best so far, in finer steps.",
)
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", help="At most so many.  [all cores]"
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The result, as JSON; a picture of it goes beside.",
)
@inference_options
def command(model, data, split, limit, start, rounds, threads, out, **options):
    """Search the CRF's parameters for a model on validation pictures.

    As DeepLabv1 did: w1, sigma_alpha and sigma_beta are tried each with each, then once more in
    finer steps around the best. Scores are those of evaluate. predict and evaluate take the
    result with --crf.

    This may take hours. What is done is kept in a file beside --out, FILE.partial, after every
    picture: stopped in any way, the same command goes on from there.

    \b
    Examples:
      deeplab-tf crf-search --model FOLDER --data RECORDS --out crf.json
      deeplab-tf crf-search --model runs/mine/best --data my_pictures --limit 20 --w1 3,5,7 \\
        --sigma-alpha 30,50,70 --sigma-beta 3,5,9 --start deeplab_v2_resnet_101 --out crf.json
      deeplab-tf evaluate --model FOLDER --data RECORDS --crf crf.json
    """
    _check_out(out)
    partial = out.with_name(f"{out.name}.partial")
    try:
        found = _search(
            model, data, split, options, limit, start, rounds=rounds, threads=threads, out=partial
        )
        _write(found, out, partial)
    except KeyboardInterrupt:
        kept = f"{partial} keeps what was done: the same command goes on from there"
        click.echo(f"stopped; {kept if partial.exists() else 'nothing was done yet'}", err=True)
        sys.exit(130)


def _check_out(out: Path) -> None:
    """Refuses a result that couldn't be written, before the work.

    Raises:
        InputError: it is a folder, or would be taken by the picture, or nothing can be written.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file for the result, such as crf.json.")
    if out.suffix.lower() == ".png":
        raise InputError(f"{out}: that name is for the picture; name a file such as crf.json.")
    check_place(out)


def _search(model, data, split, options, limit, start, *, rounds, threads, out):
    """Runs the search; what is wrong is told before a model is loaded, which takes seconds."""
    from deeplab_tf.inference.crf import read_parameters
    from deeplab_tf.inference.litert import quiet_stderr
    from deeplab_tf.postprocess.permutohedral import loops
    from deeplab_tf.training.crf_grid import NAMES, CrfGrid

    grid = CrfGrid(**{name: options[name] for name in NAMES if options[name] is not None})
    fixed = None if start is None else read_parameters(start)
    loops()
    with quiet_stderr():  # TensorFlow logs on being imported, before it knows its log level
        from deeplab_tf.inference.runner import load_runner
        from deeplab_tf.training.crf_search import START, search_crf
        from deeplab_tf.training.examples import open_examples

    open_examples(data, split)
    return search_crf(
        load_runner(model, **chosen(options)),
        data,
        split,
        grid=grid,
        start=fixed or START,
        rounds=rounds,
        limit=limit,
        threads=threads,
        partial=out,
        progress=True,
        say=click.echo,
    )


def _write(found, out: Path, partial: Path) -> None:
    """Writes the result, says what it is, and drops what an interrupted search needs."""
    from deeplab_tf.training.crf_grid import write_search

    # Before anything is printed: a pipe that is closed mustn't cost the result.
    picture = write_search(found, out)
    partial.unlink(missing_ok=True)
    _show(found)
    click.echo(f"wrote {out} and {picture}; use it with: --crf {out}")


def _show(found) -> None:
    """Prints the best candidates as a table, with the gain and warnings below."""
    from rich.console import Console
    from rich.table import Table

    click.echo(f"{found.model} on {found.data}, {found.split}")
    table = Table()
    for name in ("w1", "sigma_alpha", "sigma_beta", "mean IoU", "gain"):
        table.add_column(name, justify="right")
    for candidate, score in found.ranking()[:_SHOWN]:
        values = [f"{value:g}" for value in candidate]
        table.add_row(*values, f"{score:.4f}", f"{score - found.without_crf:+.4f}")
    Console().print(table)
    gain = found.mean_iou - found.without_crf
    click.echo(
        f"mean IoU {found.mean_iou:.4f}, without a CRF {found.without_crf:.4f}: {gain:+.4f}; "
        f"{len(found.scores)} candidates on {found.pictures} pictures in {found.seconds:.1f} s"
    )
    for kind, lines in (("note", found.notes), ("warning", found.warnings)):
        for line in lines:
            click.echo(f"{kind}: {line}")
