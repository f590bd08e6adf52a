"""Curves as pictures: a run's log, scores near outlines."""

import io
from pathlib import Path

from deeplab_tf.files import atomic_file
from deeplab_tf.training.scores import TrimapCurve


def draw_curves(entries: list[dict], path: Path) -> None:
    """Draws loss, scores and learning rate over steps into a PNG."""
    figure = new_figure(12, 3.5)
    steps = [entry["step"] for entry in entries]
    panels = (
        ("loss", ["loss"]),
        ("validation", ["pq", "pq_things", "pq_stuff", "foreground_iou", "mean_iou"]),
        ("learning rate", ["learning_rate"]),
    )
    for axes, (title, names) in zip(figure.subplots(1, 3), panels, strict=True):
        for name in names:
            pairs = zip(steps, entries, strict=True)
            points = [(s, e[name]) for s, e in pairs if e.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(names) > 1 and axes.get_legend_handles_labels()[0]:
            axes.legend()
    with atomic_file(path, suffix=".png") as temporary:
        temporary.write_bytes(png(figure))


def trimap_png(curve: TrimapCurve) -> bytes:
    """Mean IoU over the width of bands around outlines, drawn."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    lines = [("with the CRF" if curve.without_crf else "", curve.mean_iou, "-")]
    lines += [("without", curve.without_crf, "--")] if curve.without_crf else []
    for label, values, style in lines:
        pairs = zip(curve.widths, values, strict=True)
        points = [(width, 100 * value) for width, value in pairs if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set_title("near outlines")
    axes.set_xlabel("width of the band on either side, pixels")
    axes.set_ylabel("mean IoU, %")
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend()
    return png(figure)


def new_figure(width: float, height: float):
    """A matplotlib figure in inches that needs no screen."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
