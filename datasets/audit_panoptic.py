"""Looks through a folder of pictures and panoptic labels."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deeplab_tf.datasets.encode import SIZES_FIX, describe_sizes, look_at_picture
from deeplab_tf.datasets.findings import Report
from deeplab_tf.datasets.folder import check_listing
from deeplab_tf.datasets.masks import MaskError
from deeplab_tf.datasets.panoptic_checks import Seen, Tally, see
from deeplab_tf.datasets.panoptic_folder import list_panoptic
from deeplab_tf.datasets.panoptic_source import PanopticFolder
from deeplab_tf.datasets.parallel import WORKERS, map_ahead
from deeplab_tf.datasets.progress import Advance
from deeplab_tf.errors import InputError


@dataclasses.dataclass
class _Looked:
    """What one picture and its label gave."""

    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    seen: Seen | None = None
    digest: bytes = b""


def check_panoptic(
    root: Path, advance: Advance, *, classes=None, annotations=None, label_divisor=None
) -> Report:
    """Checks a folder of one of the layouts of `datasets.panoptic_folder`.

    Raises:
        InputError: it lacks something without which nothing can be read.
    """
    folder = list_panoptic(
        root, classes=classes, annotations=annotations, label_divisor=label_divisor
    )
    listing = folder.listing
    report = Report(str(root), "folder", folder.classes, listing.indices or ("train", "val"))
    report.notes += folder.notes
    for kind, message in folder.problems:
        report.add(kind, message)
    split_of = check_listing(listing, report)
    tally = Tally(report, folder.classes)
    digests: dict[bytes, str] = {}
    ids = [stem for stem in listing.images if stem in listing.masks and stem in split_of]
    with ThreadPoolExecutor(WORKERS) as pool:
        looked = map_ahead(pool, lambda stem: _look(folder, stem), ids)
        for stem, result in zip(ids, looked, strict=True):
            advance(1, len(ids))
            split = split_of[stem]
            report.splits[split] += 1
            for kind, message in result.problems:
                report.add(kind, message)
            if result.seen is not None:
                tally.add(split, result.seen)
            report.compare_digest(digests, result.digest, stem, split_of)
    tally.conclude()
    return report.conclude()


def _look(folder: PanopticFolder, stem: str) -> _Looked:
    """Opens a picture and its label."""
    result, item = _Looked(), folder.item(stem)
    image, result.digest = look_at_picture(item, result.problems)
    try:
        label, problems = folder.read(stem)
    except MaskError as error:
        result.problems.append((error.kind, str(error)))
        return result
    except InputError as error:
        result.problems.append(("mask", str(error)))
        return result
    result.problems += problems
    if image is not None:
        message = describe_sizes(item, image, label.shape)
        if message:
            result.problems.append(("sizes", message.removesuffix(f"; {SIZES_FIX}")))
    result.seen = see(label, folder.classes, item.label_name)
    return result
