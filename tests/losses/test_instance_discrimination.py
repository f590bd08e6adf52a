"""Losses that tell the pixels of one mask from those of others."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.losses.instance_discrimination import mask_contrast, pixel_contrast, sample_pixels
from deeplab_tf.losses.mask_targets import read_masks

TEMPERATURE = 0.3


def _masks(number, things=3):
    """Masks of pixels [B, P]: things 0, 1, 2 and stuff 3; -1 is a crowd and -2 not labelled."""
    number = np.int32(number)
    label = np.where(number == things, 2, np.where(number == -2, 0, 1))
    targets = {
        keys.SEMANTIC_LABEL: label[:, None],
        keys.THING_ID_MASK: np.where(number < things, np.maximum(number, -1), -1)[:, None],
        keys.THING_ID_CLASS: np.ones((len(number), things)),
    }
    size = (1, number.shape[1])
    return read_masks(targets, size, num_classes=3, thing_classes=(1,), ignore_label=0)


def _features(shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_mask_contrast_compares_the_pixels_of_things_with_the_mean_of_each_mask():
    number = np.array([0, 0, 0, 2, 2, 3, 3, -1, -2])
    feature = _features((1, 9, 5))
    present = [0, 2, 3]
    means = np.stack([feature[0, number == i].mean(0) for i in present])
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    log_probs = _log_softmax(feature[0] @ means.T / TEMPERATURE)
    expected = -np.mean([log_probs[i, present.index(number[i])] for i in range(5)])
    ours = mask_contrast(feature, _masks([number]), TEMPERATURE)
    np.testing.assert_allclose(ours, [expected], rtol=1e-5)


def test_pixel_contrast_shares_the_target_among_the_pixels_of_a_mask():
    number = np.array([0, 0, 1, 3, 3, 3, 1, -1])
    feature = _features((1, 8, 5))
    sample = np.int32([[6, 0, 3, 4, 7, 1]])
    chosen, f = number[sample[0]], feature[0, sample[0]]
    log_probs = _log_softmax(f @ f.T / TEMPERATURE)
    alike = (chosen[:, None] == chosen) & (chosen >= 0)
    target = alike / np.maximum(alike.sum(-1, keepdims=True), 1)
    losses = -(target * log_probs).sum(-1)
    ours = pixel_contrast(feature, _masks([number]), TEMPERATURE, sample)
    np.testing.assert_allclose(ours, [losses[chosen >= 0].mean()], rtol=1e-5)


@pytest.mark.parametrize("contrast", [mask_contrast, pixel_contrast])
def test_features_of_their_own_lose_less_than_shared_ones(contrast):
    number = np.repeat([0, 1, 2, 3], 4)
    arguments = (_masks([number]), 0.05)
    if contrast is pixel_contrast:
        arguments = (*arguments, np.arange(16, dtype=np.int32)[None])
    own = np.eye(4, dtype=np.float32)[number][None]
    losses = [float(contrast(x, *arguments)[0]) for x in (own, own * 0 + own[:, :1])]
    # Among its mask's own pixels nothing can be told: that is left, log 4.
    left = np.log(4) if contrast is pixel_contrast else 0
    assert losses[0] == pytest.approx(left, abs=1e-4)
    assert losses[1] == pytest.approx(left + np.log(4), abs=1e-4)


def test_pictures_without_things_or_labels_give_zero_and_no_gradient():
    masks = _masks([[3, 3, -1, -2], [-2, -2, -2, -2]])
    feature = tf.constant(_features((2, 4, 3)))
    sample = np.int32([[3, 2], [0, 1]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(feature)
        contrasts = (
            mask_contrast(feature, masks, TEMPERATURE),
            pixel_contrast(feature, masks, TEMPERATURE, sample),
        )
    for value in contrasts:
        assert not value.numpy().any()
        assert not tape.gradient(value, feature).numpy().any()


def test_what_is_not_labelled_has_no_part_in_mask_contrast():
    masks = _masks([[0, 0, 1, -2, -2]])
    feature = tf.constant(_features((1, 5, 3)))
    with tf.GradientTape() as tape:
        tape.watch(feature)
        value = mask_contrast(feature, masks, TEMPERATURE)
    gradient = tape.gradient(value, feature).numpy()
    assert gradient[0, :3].any(-1).all() and not gradient[0, 3:].any()


def _draws(number, count, temperature, times):
    """Places drawn from the same picture many times: [times, count]."""
    masks = _masks(np.tile(number, (times, 1)))
    uniform = np.random.default_rng(0).random(masks.number.shape, np.float32)
    return sample_pixels(masks, count, temperature, uniform).numpy()


def test_pixels_are_drawn_once_and_those_without_a_label_last():
    number = np.array([0] * 6 + [3] * 6 + [-2] * 8)
    for drawn in _draws(number, 12, 0.6, 20):
        assert sorted(drawn) == [*range(12)]
    for drawn in _draws(number, 15, 0.6, 20):
        assert {*range(12)} < set(drawn) and len(set(drawn)) == 15


def test_fewer_pixels_than_asked_for_are_all_drawn():
    masks = _masks([[0, 0, 3, -2]])
    drawn = sample_pixels(masks, 4096, 0.6, np.full((1, 4), 0.5, np.float32))
    assert sorted(drawn.numpy()[0]) == [0, 1, 2, 3]


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.5])
def test_the_chance_of_a_pixel_is_a_power_of_its_masks_area(temperature):
    area = np.array([2, 18])
    number = np.repeat([0, 3], area)
    first = _draws(number, 1, temperature, 4000)[:, 0]
    odds = area * area.astype(float) ** -temperature
    assert np.mean(first < 2) == pytest.approx(odds[0] / odds.sum(), abs=0.03)


def test_numbers_that_are_exactly_zero_can_be_drawn_from():
    masks = _masks([[0, 0, 3, 3]])
    drawn = sample_pixels(masks, 2, 0.6, np.float32([[0, 0.5, 0, 0.5]]))
    assert sorted(drawn.numpy()[0]) == [1, 3]
