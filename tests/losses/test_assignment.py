"""What each slot has to learn, by hand on one row of pixels."""

import numpy as np

from deeplab_tf import keys
from deeplab_tf.losses.assignment import assign
from deeplab_tf.losses.mask_targets import read_masks

# Pixels: four of thing 0, two of stuff, one crowd, one not labelled. Classes: thing, stuff, void.
LABEL, NUMBER = [1, 1, 1, 1, 2, 2, 1, 0], [0, 0, 0, 0, -1, -1, -1, -1]
THING, STUFF, VOID = range(3)


def _assign(share, probabilities):
    targets = {
        keys.SEMANTIC_LABEL: np.int32([[LABEL]]),
        keys.THING_ID_MASK: np.int32([[NUMBER]]),
        keys.THING_ID_CLASS: np.float32([[1, -1]]),
    }
    masks = read_masks(targets, (1, 8), num_classes=3, thing_classes=(1,), ignore_label=0)
    share, logits = np.float32([share]), np.log(np.float32([probabilities]))
    return {name: x.numpy()[0] for name, x in assign(share, logits, masks)._asdict().items()}


def _shares():
    """Slot 0 has the stuff, slot 2 three pixels of the thing, slot 1 the rest."""
    slot = np.array([2, 2, 2, 1, 0, 0, 1, 1])
    return np.eye(3)[slot]


SURE = [[0.1, 0.7, 0.2], [0.3, 0.3, 0.4], [0.6, 0.1, 0.3]]


def test_masks_get_the_slots_that_cover_them():
    found = _assign(_shares(), SURE)
    np.testing.assert_array_equal(found["channel"], [STUFF, VOID, THING])
    # Masks: the thing, a number that isn't used, the stuff.
    np.testing.assert_array_equal(found["slot_of_mask"], [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(found["slot_of_pixel"], [2, 2, 2, 2, 0, 0, -1, -1])


def test_a_mask_weighs_as_much_as_its_slot_is_sure_of_its_class():
    np.testing.assert_allclose(_assign(_shares(), SURE)["mask_weight"], [0.6, 0, 0.7], rtol=1e-5)


def test_a_slot_weighs_its_dice_or_how_much_of_it_is_not_labelled():
    # Slot 2 has three of four pixels and no other, slot 0 all of its own; a third of slot 1 isn't
    # labelled.
    weight = _assign(_shares(), SURE)["slot_weight"]
    np.testing.assert_allclose(weight, [1, 1 / 3, 3 / 3.5], rtol=1e-4)


def test_what_is_not_labelled_does_not_lower_the_dice():
    shares = _shares()
    shares[7] = [1, 0, 0]
    found = _assign(shares, SURE)
    np.testing.assert_allclose(found["slot_weight"][0], 1, rtol=1e-4)
    shares[6] = [1, 0, 0]
    np.testing.assert_allclose(_assign(shares, SURE)["slot_weight"][0], 2 / 2.5, rtol=1e-4)


def test_the_class_decides_between_slots_that_cover_a_mask_alike():
    shares = np.repeat([[0.5, 0.5, 0.0]], 8, axis=0)
    first, second = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
    for order in ((first, second), (second, first)):
        found = _assign(shares, [*order, [0.1, 0.1, 0.8]])
        expected = [THING, STUFF] if order[0] is first else [STUFF, THING]
        np.testing.assert_array_equal(found["channel"], [*expected, VOID])


def test_no_weight_of_what_takes_part_is_zero():
    found = _assign(_shares()[:, [1, 1, 1]] * 0, np.float32(SURE) * [0, 0, 1] + 1e-30)
    np.testing.assert_allclose(found["slot_weight"], 1e-5)
    np.testing.assert_allclose(found["mask_weight"], [1e-5, 0, 1e-5])


def test_a_mask_without_a_slot_has_no_part():
    found = _assign(_shares()[:, 2:], SURE[2:])
    np.testing.assert_array_equal(found["slot_of_mask"], [[1], [0], [0]])
    np.testing.assert_array_equal(found["slot_of_pixel"], [0, 0, 0, 0, -1, -1, -1, -1])
    np.testing.assert_array_equal(found["mask_weight"] > 0, [True, False, False])
