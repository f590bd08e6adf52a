"""COCO's panoptic files: PNGs of segment ids, and a JSON file that says what these are."""

import dataclasses
from pathlib import Path

from deeplab_tf.datasets.classes import (
    ADE20K_PANOPTIC,
    CITYSCAPES_PANOPTIC,
    COCO_PANOPTIC,
    Classes,
    find_classes,
)
from deeplab_tf.datasets.findings import listed
from deeplab_tf.datasets.folder import SPLITS, Listing, read_indices
from deeplab_tf.datasets.panoptic_source import (
    PanopticFolder,
    Read,
    folder_split,
    layout_pictures,
    short_id,
    size_text,
    with_divisor,
)
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import (
    Annotation,
    Category,
    Coding,
    entry_image,
    most_instances,
    read_annotations,
    read_ids,
    to_panoptic,
)
from deeplab_tf.pictures import voc_colors


def json_files(root: Path) -> list[tuple[str | None, Path]]:
    """Panoptic JSON files by split: those with a folder of their name, or panoptic.json."""
    plain = root / "panoptic.json"
    if plain.exists():
        return [(None, plain)]
    found = [
        path
        for place in (root, root / "annotations", root / "gtFine")
        for path in sorted(place.glob("*panoptic_*.json"))
        if path.with_suffix("").is_dir()
    ]
    if len(found) < 2:
        return [(None, path) for path in found]
    # Of two of one split the last one is taken: Cityscapes' "_trainId" has the classes to train.
    by_split = {
        split: path
        for path in found
        for split in SPLITS
        if path.stem.partition("panoptic_")[2].startswith(split)
    }
    if not by_split:
        raise InputError(
            f"{root}: several panoptic JSON files, the first: {found[0]}; their names say no split "
            f"({', '.join(SPLITS)}). Name one with --annotations."
        )
    return [*by_split.items()]


def _png_folder(root: Path, path: Path) -> Path:
    """Where the PNGs of a JSON file are."""
    beside = path.with_suffix("")
    found = next((place for place in (beside, root / "panoptic") if place.is_dir()), None)
    if found is None:
        raise InputError(f"{path}: no folder {beside} of panoptic PNGs beside it, which it names.")
    return found


def list_coded(root: Path, files, classes, label_divisor: int | None) -> PanopticFolder:
    images, doubles = layout_pictures(root)
    problems: list[tuple[str, str]] = []
    entries: dict[str, Annotation] = {}
    masks: dict[str, Path] = {}
    json_of: dict[str, Path] = {}
    indices: dict[str, list[str]] = {}
    categories: tuple[Category, ...] = ()
    absent = 0
    for split, path in files:
        annotations = read_annotations(path)
        if not annotations.categories:
            raise InputError(f"{path}: no `categories`, which say what its category ids mean.")
        if categories and categories != annotations.categories:
            raise InputError(f"{path}: its categories aren't those of {files[0][1]}.")
        categories, place = annotations.categories, _png_folder(root, path)
        there = {png.name: png for png in sorted(place.glob("*.png"))}
        for entry in annotations.entries:
            png, stem = there.pop(entry.file_name, None), short_id(entry_image(entry))
            if stem in entries:
                problems.append(("listed twice", f"{path}: {stem}"))
            elif png is not None:
                masks[stem], entries[stem], json_of[stem] = png, entry, path
                if stem in images and (name := split or folder_split(root, images[stem])):
                    indices.setdefault(name, []).append(stem)
            elif stem in images:
                problems.append(("no png", f"{path}: {entry.file_name}"))
            else:
                absent += 1
        problems += [("no entry", str(png)) for png in there.values()]
    found, coding_ids = _category_classes(categories, classes)
    things = {coding_ids[label] for label in found.things}
    highest = max((most_instances(entry, things) for entry in entries.values()), default=0)
    found = with_divisor(found, highest, label_divisor)
    assert found.label_divisor is not None and found.ignored is not None
    coding = Coding(coding_ids, found.things, found.label_divisor, found.ignored)
    given = read_indices(root) or {split: tuple(ids) for split, ids in indices.items()}
    notes = [f"{absent} entries have neither picture nor PNG here"] if absent else []
    reader = _CodedReader(found, coding, masks, entries)
    return PanopticFolder(
        Listing(root, images, masks, doubles, given),
        found,
        reader.read,
        lambda stem: (json_of[stem],),
        problems,
        notes,
    )


def _category_classes(categories: tuple[Category, ...], given) -> tuple[Classes, tuple[int, ...]]:
    """Classes of a JSON file's categories, and the category id by label value."""
    ordered = sorted(categories, key=lambda category: category.id)
    ids, names = tuple(c.id for c in ordered), tuple(c.name for c in ordered)
    found, known = None if given is None else find_classes(given), _known_classes(ordered)
    if known is not None and found in (None, known):
        coded = (known.category_ids[0], *ids) if known.ignored == 0 else ids
        return dataclasses.replace(known, category_ids=coded), coded
    if found is not None:
        by_name = dict(zip(names, ids, strict=True))
        lacking = [name for name in names if name not in found.names]
        if lacking:
            raise InputError(
                f"{given}: {len(lacking)} categories of the JSON file are no class there, the "
                f"first: {lacking[0]!r}. Leave --classes out to take the file's own."
            )
        # Ids from -1 down stand for classes that the file doesn't have.
        coded = tuple(by_name.get(name, -1 - label) for label, name in enumerate(found.names))
        flags = tuple(found.names.index(c.name) for c in ordered if c.is_thing)
        found = dataclasses.replace(found, things=found.things or tuple(sorted(flags)))
        return found, coded
    colors = voc_colors(len(ordered))
    found = Classes(
        names=names,
        colors=tuple(c.color or color for c, color in zip(ordered, colors, strict=True)),
        ignore_label=255 if len(ordered) <= 255 else 65535,
        things=tuple(label for label, c in enumerate(ordered) if c.is_thing),
        category_ids=ids,
    )
    return found, ids


def _known_classes(ordered: list[Category]) -> Classes | None:
    """The known list that a file's categories are, in the order of their ids."""
    names = tuple(c.name for c in ordered)
    for known in (COCO_PANOPTIC, CITYSCAPES_PANOPTIC):
        if names == known.names[known.ignored == 0 :]:
            return known
    # Files of ADE20K differ in its names ("road", "road, route"), but not in which are things.
    things = tuple(label for label, c in enumerate(ordered, start=1) if c.is_thing)
    is_ade20k = len(ordered) == 150 and things == ADE20K_PANOPTIC.things
    return ADE20K_PANOPTIC if is_ade20k else None


@dataclasses.dataclass(frozen=True)
class _CodedReader:
    """Reads PNGs of segment ids by their entries in a JSON file."""

    classes: Classes
    coding: Coding
    masks: dict[str, Path]
    entries: dict[str, Annotation]

    def read(self, stem: str) -> Read:
        path, entry = self.masks[stem], self.entries[stem]
        ids = read_ids(path)
        found = to_panoptic(ids, entry.segments, self.coding)
        problems = []
        for kind, values in (
            ("unlisted segments", found.unknown),
            ("missing segments", found.missing),
        ):
            if values:
                problems.append((kind, f"{path}: {listed(values)}"))
        for kind, labels in (("stuff segments", found.split), ("instances", found.crowded)):
            if labels:
                names = listed([self.classes.names[label] for label in labels])
                text = (
                    f"; the divisor is {self.coding.label_divisor}" if kind == "instances" else ""
                )
                problems.append((kind, f"{path}: {names}{text}"))
        if entry.size is not None and entry.size != ids.shape:
            height, width = entry.size
            problems.append(("entry size", f"{path} is {size_text(ids)}, not {width} x {height}"))
        return Read(found.panoptic, problems)
