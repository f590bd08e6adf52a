"""What scores don't say by themselves: never predicted, not in the data, good only by accident."""

from collections.abc import Sequence

import numpy as np

# Predicted so many times more or less often than labelled is worth a word.
_OFF = 2.0
# Classes rarer than this vary by chance.
_RARE = 0.001
_FEW_PICTURES = 20


def plain_warnings(
    confusion: np.ndarray, classes: Sequence[str], picture_count: int
) -> tuple[str, ...]:
    """Warnings in plain words, the gravest first.

    Args:
        confusion: pixels by [label, prediction].
        classes: names by value.
        picture_count: pictures in the split.
    """
    total = max(1, confusion.sum())
    labelled, predicted = confusion.sum(1) / total, confusion.sum(0) / total
    names = [f"class {value} ({name})" for value, name in enumerate(classes)]
    return (
        *_overall(confusion, labelled, predicted, names, picture_count),
        *_never_predicted(labelled, predicted, names),
        *_not_in_the_data(labelled, predicted, names),
        *_out_of_proportion(labelled, predicted, names),
    )


def _overall(confusion, labelled, predicted, names, picture_count) -> list[str]:
    found = []
    if not confusion.sum():
        return ["no pixel counts: every label is the ignored value. Check the label values."]
    top = int(predicted.argmax())
    if predicted[top] > 0.995 and labelled[top] < 0.98:
        found.append(
            f"{predicted[top]:.1%} of all pixels are predicted as {names[top]}: the model has "
            "learnt nothing yet, or its pictures are normalised in another way."
        )
    accuracy = np.trace(confusion) / confusion.sum()
    union = confusion.sum(1) + confusion.sum(0) - np.diag(confusion)
    mean = (np.diag(confusion)[union > 0] / union[union > 0]).mean()
    if accuracy > 0.8 and mean < 0.5:
        found.append(
            f"pixel accuracy is {accuracy:.1%} only because {names[int(labelled.argmax())]} fills "
            f"{labelled.max():.1%} of the pixels; mean IoU, {mean:.3f}, tells the truth."
        )
    if picture_count < _FEW_PICTURES:
        found.append(f"only {picture_count} pictures: scores of so few vary by chance.")
    return found


def _never_predicted(labelled, predicted, names) -> list[str]:
    return [
        f"{name}: {_percent(share)} of the pixels, never predicted. Rare classes need class "
        "weights or hard pixels only (loss.class_weights, loss.top_k_percent_pixels)."
        for name, share, seen in zip(names, labelled, predicted, strict=True)
        if share > 0 and seen == 0
    ]


def _not_in_the_data(labelled, predicted, names) -> list[str]:
    found = [
        f"{name}: not in the labels of this split, but predicted for {_percent(seen)} of the "
        "pixels; it counts as 0 in the mean."
        for name, share, seen in zip(names, labelled, predicted, strict=True)
        if share == 0 and seen > 0
    ]
    absent = [
        name
        for name, share, seen in zip(names, labelled, predicted, strict=True)
        if share == 0 and seen == 0
    ]
    if absent and len(absent) < len(names):
        found.append(
            f"{', '.join(absent)}: neither labelled nor predicted; the mean is over the other "
            f"{len(names) - len(absent)} of {len(names)} classes."
        )
    return found


def _out_of_proportion(labelled, predicted, names) -> list[str]:
    found = []
    for name, share, seen in zip(names, labelled, predicted, strict=True):
        if share < _RARE or seen == 0:
            continue
        if seen > _OFF * share or share > _OFF * seen:
            more = "more" if seen > share else "less"
            times = max(seen / share, share / seen)
            found.append(
                f"{name}: predicted for {seen:.1%} of the pixels, {times:.1f} times {more} than "
                f"labelled ({share:.1%})."
            )
    return found


def _percent(share: float) -> str:
    """0.003 -> "0.3%"; never "0.0%", which would say that there is nothing."""
    return f"{share:.1%}" if share >= 0.0005 else "less than 0.1%"
