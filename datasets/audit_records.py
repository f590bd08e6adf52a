"""Looks through a folder of records: ours, or some that other code wrote."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.datasets.build import describe
from deeplab_tf.datasets.classes import Classes, find_classes
from deeplab_tf.datasets.descriptors import FILE_NAME, DatasetDescriptor
from deeplab_tf.datasets.findings import Report, listed
from deeplab_tf.datasets.masks import value_counts, wrong_values
from deeplab_tf.datasets.panoptic_checks import Seen, Tally, see
from deeplab_tf.datasets.parallel import WORKERS, map_ahead
from deeplab_tf.datasets.progress import Advance, bar
from deeplab_tf.datasets.tfrecord import decode_example, list_shards, missing_shards, read_records
from deeplab_tf.errors import InputError

# Problems that don't keep records from being used.
_TOLERABLE = ("description", "empty class", "no instance")
_PNG = b"\x89PNG"
# Places in a PNG's head, and what they say there.
_DEPTH, _KIND, _PALETTE = 24, 25, 3


@dataclasses.dataclass(frozen=True)
class Looked:
    """What one record holds.

    Attributes:
        name: of its picture.
        counts: label values, None if they can't be read.
        problems: (kind, message) of each.
        seen: what its label holds, if it is panoptic; its problems are among `problems`.
    """

    name: str
    counts: np.ndarray | None
    problems: tuple[tuple[str, str], ...] = ()
    seen: Seen | None = None


def classes_of(descriptor: DatasetDescriptor) -> Classes:
    """What label values mean in records of that description."""
    ignore = descriptor.ignore_label
    return Classes(
        descriptor.classes,
        descriptor.colors,
        ignore,
        binary=ignore is None,
        things=descriptor.thing_classes,
        label_divisor=descriptor.label_divisor,
        category_ids=descriptor.category_ids,
    )


def look_at_record(record: bytes, classes: Classes | None) -> Looked:
    """Decodes one record as training will, and says what is wrong with it."""
    name = "a record"
    try:
        features = tf.train.Example.FromString(record).features.feature
        names = features[keys.RECORD_FILENAME].bytes_list.value
        name = names[0].decode("utf-8", "replace") if names else name
        label = (features[keys.RECORD_LABEL].bytes_list.value or [b""])[0]
        label_format = features[keys.RECORD_LABEL_FORMAT].bytes_list.value
        divisor = classes.label_divisor if classes else None
        example = decode_example(record, divisor)
    except Exception as error:  # bytes that are no record fail in many ways
        return Looked(name, None, (("record", f"{name}: {reason_of(error)}"),))
    size, label_size = example[keys.IMAGE].shape[:2], example[keys.SEMANTIC_LABEL].shape
    if not label:
        return Looked(name, None, (("no label", name),))
    problems = []
    if label[:4] == _PNG and (label[_KIND] == _PALETTE or label[_DEPTH] < 8):
        kind = "a palette" if label[_KIND] == _PALETTE else f"{label[_DEPTH]} bits"
        problems.append(("record", f"{name}: its label is a PNG of {kind}, which isn't read as is"))
    if size != label_size:
        text = f"{name}: label {label_size[1]} x {label_size[0]}, picture {size[1]} x {size[0]}"
        problems.append(("sizes", text))
    if divisor is not None and [*label_format] != [b"raw"]:
        problems.append(("record", f"{name}: its label isn't raw, so it tells no instances apart"))
    elif divisor is not None:
        assert classes is not None
        seen = see(example[keys.PANOPTIC_LABEL].numpy(), classes, name)
        return Looked(name, seen.counts, (*problems, *seen.problems), seen)
    values = example[keys.SEMANTIC_LABEL].numpy()
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        problems.append(("values", f"{name}: from {values.min()} to {values.max()}"))
        return Looked(name, None, tuple(problems))
    counts = value_counts(values)
    wrong = wrong_values(counts, classes) if classes else []
    if wrong:
        problems.append(("values", f"{name}: {listed(wrong)}"))
    return Looked(name, counts, tuple(problems))


def reason_of(error: Exception) -> str:
    """The one line of TensorFlow's message that says what is wrong."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    return lines[0].rpartition("}} ")[2].partition(" [Op:")[0]


def check_records(
    folder: Path,
    classes: str | os.PathLike | None,
    advance: Advance,
    label_divisor: int | None = None,
) -> Report:
    """Checks every record, shard by shard.

    Args:
        folder: of records.
        classes: a class file or known list; None takes the records' own.
        advance: moves a progress bar.
        label_divisor: None takes that of the known list or of the records.

    Raises:
        InputError: no such classes, or records of instances and nothing that says their divisor.
    """
    descriptor, mistake = _description(folder)
    found = _record_classes(folder, descriptor, classes, label_divisor)
    report = Report(str(folder), "records", found, descriptor.splits if descriptor else ())
    if mistake:
        fix = f"Write one with: deeplab-tf data describe {folder} --classes FILE"
        report.add("description", mistake, fix)
    tally = Tally(report, found) if found and found.label_divisor else None
    splits = list_shards(folder)
    expected = sum(descriptor.splits.values()) if descriptor else 0
    for split in descriptor.splits if descriptor else ():
        if split not in splits:
            report.add("shards", f"{split}: no shards")
    for split, shards in splits.items():
        missing = missing_shards(shards)
        if missing:
            report.add("shards", f"{split}: {missing}")
        for shard in shards:
            _check_shard(report, tally, split, shard.path, lambda: advance(1, expected))
    if tally is not None:
        tally.conclude()
    if descriptor:
        _compare(report, descriptor)
    report.conclude()
    if tally is None and found and _is_raw(folder):
        report.advise(
            "values",
            "Labels of this format are mostly class * divisor + instance: give a class list that "
            "marks things (column thing, or a known one) and --label-divisor.",
        )
    return report


def _record_classes(folder: Path, descriptor, classes, label_divisor) -> Classes | None:
    """What label values mean."""
    found = find_classes(classes) if classes is not None else None
    if found is None and descriptor:
        found = classes_of(descriptor)
    if found is None:
        return None
    if not _is_raw(folder):
        # A known list of a panoptic set serves its plain label maps, too.
        return found if classes is None else found.semantic()
    divisor = label_divisor or found.label_divisor
    if divisor is None and descriptor and found.things:
        divisor = descriptor.label_divisor
    if divisor is not None:
        return found.panoptic(divisor)
    if found.things:
        raise InputError(
            f"{folder}: its labels are class * divisor + instance; give the divisor they were made "
            "with, such as --label-divisor 1000 (Cityscapes) or 256 (COCO)."
        )
    return found


def _is_raw(folder: Path) -> bool:
    """Whether the first record has a label of the format that panoptic labels have."""
    for shards in list_shards(folder).values():
        try:
            record = next(read_records(shards[0].path), None)
            features = tf.train.Example.FromString(record or b"").features.feature
        except Exception:  # said where all of it is read
            continue
        return [*features[keys.RECORD_LABEL_FORMAT].bytes_list.value] == [b"raw"]
    return False


def _description(folder: Path) -> tuple[DatasetDescriptor | None, str]:
    """The description of records, or why there is none."""
    if not (folder / FILE_NAME).exists():
        return None, f"{folder}: no {FILE_NAME}"
    try:
        return DatasetDescriptor.load(folder), ""
    except InputError as error:
        return None, str(error)


def _check_shard(report: Report, tally: Tally | None, split: str, path: Path, advance) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        looked = map_ahead(pool, lambda r: look_at_record(r, report.classes), read_records(path))
        try:
            for result in looked:
                advance()
                report.splits[split] += 1
                seen = result.seen
                for kind, message in result.problems:
                    if seen is None or (kind, message) not in seen.problems:
                        report.add(kind, f"{path.name}: {message}")
                if seen is not None and tally is not None:
                    tally.add(split, seen, f"{path.name}: ")
                elif result.counts is not None:
                    report.count(split, result.counts)
        except InputError as error:
            report.add("shards", str(error).partition(". Delete")[0])


def _compare(report: Report, descriptor: DatasetDescriptor) -> None:
    """Counts that the description gives against those found."""
    if any(problem.kind == "shards" for problem in report.problems):
        return  # says why they differ
    for split in {**descriptor.splits, **report.splits}:
        said, there = descriptor.splits.get(split, 0), report.splits[split]
        if said != there:
            fix = "Run the same `deeplab-tf data build` again, or correct the numbers in the file."
            report.add("description", f"{FILE_NAME} says {said} of {split}, not {there}", fix)


def describe_records(
    folder: str | os.PathLike,
    classes: str | os.PathLike,
    *,
    label_divisor: int | None = None,
    quiet: bool = True,
) -> DatasetDescriptor:
    """Writes the dataset.json of records that other code wrote, once they are found good.

    Args:
        folder: of shards with the official names and features.
        classes: a class file, or the name of a known list.
        label_divisor: of panoptic labels; None takes that of the known list.
        quiet: no progress bar.

    Raises:
        InputError: there are no records, or something is wrong with them.
    """
    folder = Path(folder)
    find_classes(classes)
    if not list_shards(folder):
        raise InputError(f"{folder}: no files called SPLIT-00000-of-00001.tfrecord in there.")
    with bar("checking", quiet) as advance:
        report = check_records(folder, classes, advance, label_divisor)
    wrong = [problem for problem in report.problems if problem.kind not in _TOLERABLE]
    if wrong:
        raise InputError(
            f"{folder}: {wrong[0].what}: {wrong[0].places[0]}. {wrong[0].fix} "
            f"`deeplab-tf data check {folder} --classes {classes}` lists everything."
        )
    found = report.classes
    assert found is not None
    name = folder.resolve().name
    descriptor = describe(name, found, report.splits, report.train_counts, f"the records {name}")
    descriptor.save(folder)
    return descriptor
