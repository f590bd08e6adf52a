"""Data sets of TensorFlow Datasets as sources of records; an extra, and online the first time."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deeplab_tf.datasets.classes import CITYSCAPES_PANOPTIC, Classes
from deeplab_tf.datasets.source import Item, part_size
from deeplab_tf.errors import InputError
from deeplab_tf.panoptic_format import CITYSCAPES_IDS


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How the features of one data set are read.

    Attributes:
        classes: what label values mean once `label` has been applied.
        splits: our name of a split -> theirs.
        image, mask, name: keys of their features; `name` gives the picture's file name.
        label: mask values [H, W] -> label values.
    """

    classes: Classes
    splits: dict[str, str]
    image: str = "image"
    mask: str = "segmentation_mask"
    name: str = "file_name"
    label: Callable[[np.ndarray], np.ndarray] = lambda mask: mask


def _cityscapes_label(mask: np.ndarray) -> np.ndarray:
    table = np.full(256, 255, np.uint8)
    table[list(CITYSCAPES_IDS)] = np.arange(19)
    return table[mask]


ADAPTERS = {
    # Masks hold 1 pet, 2 background, 3 border.
    "oxford_iiit_pet": Adapter(
        Classes(
            ("pet", "background", "border"),
            ((230, 120, 40), (0, 0, 0), (250, 220, 90)),
            colored=True,
        ),
        {"train": "train", "val": "test"},
        label=lambda mask: mask - 1,
    ),
    "cityscapes/semantic_segmentation": Adapter(
        CITYSCAPES_PANOPTIC.semantic(),
        {"train": "train", "val": "validation"},
        image="image_left",
        mask="segmentation_label",
        name="image_id",
        label=_cityscapes_label,
    ),
}


class TfdsSet:
    """One data set of TensorFlow Datasets as a `Source`."""

    def __init__(self, name: str, adapter: Adapter, builder: Any, decoders: dict):
        self.name = name.partition("/")[0]
        self.source = f"TensorFlow Datasets, {name} {builder.info.version}"
        self.classes = adapter.classes
        self.counts = {
            ours: builder.info.splits[theirs].num_examples
            for ours, theirs in adapter.splits.items()
        }
        self._adapter, self._builder, self._decoders = adapter, builder, decoders

    def stamp(self) -> list:
        """Which version of the set."""
        return [self.source, self.counts]

    def items(self, split: str, part: int, parts: int) -> Iterator[Item]:
        """A run of the split: streams can't be read with gaps."""
        sizes = [part_size(self.counts[split], i, parts) for i in range(parts)]
        first, adapter = sum(sizes[:part]), self._adapter
        wanted = f"{adapter.splits[split]}[{first}:{first + sizes[part]}]"
        examples = self._builder.as_dataset(
            split=wanted, decoders=self._decoders, shuffle_files=False
        )
        for example in examples.as_numpy_iterator():
            name = example[adapter.name].decode("utf-8", "replace")
            read = functools.partial(_label, example[adapter.mask], adapter)
            yield Item(name, example[adapter.image], f"the mask of {name}", read)


def _label(mask: np.ndarray, adapter: Adapter) -> np.ndarray:
    return adapter.label(mask[..., 0] if mask.ndim == 3 else mask)


def open_tfds(name: str) -> TfdsSet:
    """Opens a data set, downloading and preparing it if that wasn't done before.

    Args:
        name: a key of `ADAPTERS`. TensorFlow Datasets keeps its files in ~/tensorflow_datasets,
            or where the environment variable TFDS_DATA_DIR says.

    Raises:
        InputError: an unknown name, the extra isn't installed, or the download failed.
    """
    adapter = ADAPTERS.get(name)
    if adapter is None:
        raise InputError(f"tfds:{name}: unknown here; there are {', '.join(ADAPTERS)}.")
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(name)
        builder.download_and_prepare()
    except ImportError as error:  # also of what it imports only when it downloads
        raise InputError(
            f'tfds:{name} needs TensorFlow Datasets ({error}): pip install "deeplab-tf[tfds]"'
        ) from None
    except Exception as error:  # as many kinds as there are ways to fetch something
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise InputError(
            f"tfds:{name}: can't be prepared ({reason}). Go online once, or set TFDS_DATA_DIR to a "
            "folder that holds it."
        ) from None
    # Their decoders would throw away the JPEG's bytes, and fail on a mislabelled one.
    return TfdsSet(name, adapter, builder, {adapter.image: tfds.decode.SkipDecoding()})
