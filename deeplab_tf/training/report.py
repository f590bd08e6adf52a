"""An evaluation as files: numbers as JSON and CSV, and a page with the worst pictures."""

import base64
import csv
import html
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_tf import pictures
from deeplab_tf.files import atomic_file, write_json
from deeplab_tf.training.curves import trimap_png
from deeplab_tf.training.scores import PanopticScores, Scores, WorstPicture

REPORT_FILE = "report.json"
PICTURES_FILE = "pictures.csv"
PAGE_FILE = "report.html"
WORST_FILE = "worst.png"
TRIMAP_FILE = "trimap.png"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2026; background: #fafaf8;
       max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
td, th { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #dddcd6; }
td:first-child, th:first-child { text-align: left; padding-left: 0; }
.name { display: flex; align-items: center; }
.warn { background: #fff3d6; border-left: 4px solid #d99a00; padding: .4rem .8rem;
        margin: .4rem 0; }
.swatch { flex: none; width: .8em; height: .8em; margin-right: .5em; border: 1px solid #0003; }
.row { display: grid; grid-template-columns: repeat(3, minmax(0, 20rem)); gap: .5rem;
       margin: .3rem 0 1.2rem; }
.row img { width: 100%; height: auto; } .faint { color: #68707a; }
.of { overflow-wrap: anywhere; } .curve { max-width: 100%; height: auto; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; } td, th { padding: .25rem .4rem; font-size: .9em; }
  .row { gap: .25rem; }
}
"""


def write_report(scores: Scores, out: str | os.PathLike) -> list[Path]:
    """Writes report.json, pictures.csv, report.html, worst.png and trimap.png into a folder.

    Args:
        scores: from `evaluate`.
        out: the folder; made if missing. Each file appears whole or not at all.

    Returns:
        The paths written.
    """
    out = Path(out)
    write_json(out / REPORT_FILE, scores.to_json())
    with atomic_file(out / PICTURES_FILE) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        columns = ["mean_iou", "foreground_iou", "pixel_accuracy"]
        columns += ["pq"] if scores.panoptic is not None else []
        table.writerow(["name", *columns])
        for score in scores.pictures:
            values = [getattr(score, column) for column in columns]
            table.writerow([score.name, *("" if v is None else f"{v:.5f}" for v in values)])
    with atomic_file(out / PAGE_FILE) as temporary:
        temporary.write_text(page(scores), "utf-8")
    written = [out / REPORT_FILE, out / PICTURES_FILE, out / PAGE_FILE]
    if scores.worst:
        pictures.save_image(out / WORST_FILE, worst_sheet(scores))
        written.append(out / WORST_FILE)
    if scores.trimap is not None:
        with atomic_file(out / TRIMAP_FILE, suffix=".png") as temporary:
            temporary.write_bytes(trimap_png(scores.trimap))
        written.append(out / TRIMAP_FILE)
    return written


def worst_sheet(scores: Scores) -> np.ndarray:
    """Photo, label and prediction of the worst pictures, a row each: uint8 [H, W, 3]."""
    tiles = []
    for shown in scores.worst:
        tiles += [
            (f"{shown.score.name}\n{_rank(shown)}", shown.image),
            ("label", shown.label),
            ("prediction", shown.prediction),
        ]
    return pictures.contact_sheet(
        tiles,
        3,
        title="Worst pictures",
        subtitle=f"{scores.model} on {scores.data}, {scores.split}",
        width=240,
    )


def _rank(shown: WorstPicture) -> str:
    if shown.score.pq is not None:
        return f"PQ {shown.score.pq:.3f}"
    if shown.score.foreground_iou is None:
        return f"mean IoU {shown.score.mean_iou:.3f}"
    return f"IoU {shown.score.foreground_iou:.3f}"


def page(scores: Scores) -> str:
    """A page of HTML that holds its pictures and needs no other file."""
    facts = [f"PQ {scores.panoptic.pq.get('all', 0.0):.4f}"] if scores.panoptic else []
    facts.append(scores.mean_iou_text)
    if scores.mean_boundary_iou is not None:
        facts.append(f"boundary IoU {scores.mean_boundary_iou:.4f}")
    facts.append(f"pixel accuracy {scores.pixel_accuracy:.4f}")
    if scores.without_crf is not None:
        facts.append(f"mean IoU without the CRF {scores.without_crf:.4f}")
    if scores.foreground_iou is not None:
        name = scores.classes[1].name
        facts.append(f"{name} IoU, mean over pictures {scores.foreground_iou:.4f}")
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        # Without it a phone would show the page as on a desk, too small to read.
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{_text(scores.model)}</title><style>{_STYLE}</style>",
        f"<h1>{_text(scores.model)}</h1>",
        f"<p class=faint>{_text(scores.data)}, {_text(scores.split)}: "
        f"{len(scores.pictures)} pictures in {scores.seconds:.0f} s</p>",
        f"<p><b>{_text(' · '.join(facts))}</b></p>",
        *(f"<div class=warn>{_text(warning)}</div>" for warning in scores.warnings),
        *(f"<p class=faint>{_text(note)}</p>" for note in scores.notes),
        "<h2>Classes</h2>",
        _class_table(scores),
    ]
    if scores.panoptic is not None:
        parts += ["<h2>Segments</h2>", _panoptic_table(scores.panoptic)]
        parts += [f"<p>{_text(line)}</p>" for line in scores.panoptic.lines]
    if scores.foreground_iou_by_source:
        name = _text(scores.classes[1].name)
        parts.append(f"<h2>{name} IoU by source, mean over pictures</h2><table>")
        for source, iou in scores.foreground_iou_by_source.items():
            parts.append(f"<tr><td>{_text(source)}<td>{iou:.4f}")
        parts.append("</table>")
    if scores.trimap is not None:
        source = _data_url(trimap_png(scores.trimap), "png")
        parts.append("<h2>Near outlines</h2>")
        parts.append(
            f'<img class=curve alt="{_text("; ".join(scores.trimap_lines))}" src="{source}">'
        )
    if scores.worst:
        parts.append("<h2>Worst pictures: photo, label, prediction</h2>")
    for shown in scores.worst:
        images = "".join(
            f'<img alt="{what}" title="{what}" src="{_inline(array)}">'
            for what, array in (
                ("photo", shown.image),
                ("label", shown.label),
                ("prediction", shown.prediction),
            )
        )
        parts.append(
            f"<div class=of>{_text(shown.score.name)} <span class=faint>{_rank(shown)}</span></div>"
        )
        parts.append(f"<div class=row>{images}</div>")
    return "\n".join(parts) + "\n"


def _class_table(scores: Scores) -> str:
    rows = [
        "<div class=scroll><table>",
        "<tr><th>class<th>IoU<th>boundary IoU<th>of the labels<th>of the predictions",
    ]
    for score in scores.classes:
        swatch = f'<span class=swatch style="background:rgb{tuple(score.color)}"></span>'
        rows.append(
            f"<tr><td><div class=name>{swatch}{_text(score.name)}</div><td>{shown_iou(score.iou)}"
            f"<td>{shown_iou(score.boundary_iou)}<td>{score.pixel_share:.2%}"
            f"<td>{score.predicted_share:.2%}"
        )
    return "\n".join([*rows, "</table></div>"])


def _panoptic_table(scores: PanopticScores) -> str:
    rows = ["<div class=scroll><table>"]
    rows.append("<tr><th>segments of<th>PQ<th>SQ<th>RQ<th>found<th>missed<th>invented")
    for score in scores.classes:
        if score.pq is None:
            continue
        numbers = "".join(f"<td>{shown_iou(value)}" for value in (score.pq, score.sq, score.rq))
        kind = "" if score.is_thing else " (stuff)"
        rows.append(
            f"<tr><td>{_text(score.name + kind)}{numbers}<td>{score.found}<td>{score.missed}"
            f"<td>{score.invented}"
        )
    return "\n".join([*rows, "</table></div>"])


def shown_iou(value: float | None) -> str:
    """Four digits, or a dash for a class that isn't there."""
    return "-" if value is None else f"{value:.4f}"


def _text(value: str) -> str:
    return html.escape(str(value))


def _inline(array: np.ndarray) -> str:
    """A picture as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "jpeg", quality=88)
    return _data_url(buffer.getvalue(), "jpeg")


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
