"""`deeplab-tf models`."""

from typing import Any

import click


@click.command(short_help="List the presets: size, cost, score, where their weights are.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def command(name, as_json):
    """List the presets, or tell all about one.

    Parameters are without batch norm's moving statistics, multiply-adds are those of convolutions
    for one picture of the size shown. Both are counted from the graphs that are built here.

    \b
    Examples:
      deeplab-tf models
      deeplab-tf models deeplab_v3_mobilenet_v2_voc
      deeplab-tf models --json
    """
    import json

    from rich.console import Console

    from deeplab_tf.inference.litert import quiet_stderr

    with quiet_stderr():  # TensorFlow, as it starts
        from deeplab_tf.models.presets import (
            describe_preset,
            find_preset,
            list_presets,
            shipped_names,
        )

    if name and name not in shipped_names():
        find_preset(name)
    with Console(stderr=True).status("building the graphs"):
        rows = [describe_preset(name)] if name else list_presets()
    if as_json:
        click.echo(json.dumps(rows[0] if name else rows, indent=2))
    elif name:
        _show_one(rows[0])
    else:
        _show_table(rows)


def short(number: int) -> str:
    """2113557 -> "2.11M"."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.2f}{unit}"
    return str(number)


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    table.add_column("preset", no_wrap=True)
    for column in ("classes", "picture", "stride", "parameters", "multiply-adds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            str(len(row["classes"])),
            "x".join(map(str, row["image_size"])),
            str(row["output_stride"]),
            short(row["parameters"]),
            short(row["multiply_adds"]),
            _where(row),
        )
    # A name cut in two can't be copied.
    Console(markup=False, highlight=False, width=140).print(table)
    click.echo("deeplab-tf models NAME: published score, and where to get the weights to convert.")


def _where(row: dict[str, Any]) -> str:
    """Whether there are weights to be had: a word for the table."""
    if row["shipped"]:
        return "inside"
    if not row["weights"]:
        return "none"
    return "convert" if row["convertible"] else "elsewhere"


def _show_one(row: dict[str, Any]) -> None:
    height, width = row["image_size"]
    facts = {
        "model": f"{row['class']}, {row['backbone']}, output stride {row['output_stride']}",
        "picture": f"{height}x{width}, RGB 0..255; made {_normalised(row['pixels'])} inside",
        "parameters": short(row["parameters"]),
        "multiply-adds": f"{short(row['multiply_adds'])} at {height}x{width}",
        "published cost": row["published_cost"] or "none",
        "score": row["result"] or "not published",
        "source": row["source"],
        "license": row["license"],
        "weights": _address(row),
        "classes": f"{len(row['classes'])}: {', '.join(row['classes'])}",
    }
    click.echo(row["name"])
    for key, value in facts.items():
        click.echo(f"  {key:<14} {value}")
    if row["shipped"]:
        click.echo(f"next: deeplab-tf predict photo.jpg --model {row['name']}")
    elif row["weights"] and row["convertible"]:
        click.echo("next: download and unpack the weights, then")
        click.echo(f"  deeplab-tf convert CHECKPOINT --model {row['name']} --out FOLDER")


def _address(row: dict[str, Any]) -> str:
    if row["weights"] and not (row["shipped"] or row["convertible"]):
        return f"{row['weights']} (which convert doesn't read yet)"
    return row["weights"] or "not published"


def _normalised(pixels: str) -> str:
    words = {
        "mean": "RGB less the ImageNet means",
        "mean, std": "RGB less the ImageNet means, over their deviations,",
    }
    return words.get(pixels, pixels)
