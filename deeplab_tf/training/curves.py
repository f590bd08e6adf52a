"""A run's log as a picture."""

from pathlib import Path

from deeplab_tf.files import atomic_file


def draw_curves(entries: list[dict], path: Path) -> None:
    """Draws loss, scores and learning rate over steps into a PNG."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.5), layout="constrained")
    steps = [entry["step"] for entry in entries]
    panels = (
        ("loss", ["loss"]),
        ("validation IoU", ["foreground_iou", "mean_iou"]),
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
        figure.savefig(temporary, format="png", dpi=110)
