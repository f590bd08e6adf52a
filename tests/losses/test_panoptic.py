"""The losses of Panoptic-DeepLab's heads."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.errors import InputError
from deeplab_tf.losses.panoptic import CenterLoss, OffsetLoss, SemanticLoss

OTHER_BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]


def _cross_entropy(labels, logits):
    logits = logits.astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log_probs, labels[..., None], -1)[..., 0]


def _batch(seed=0, size=(2, 6, 5), classes=4):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, size).astype(np.int32)
    logits = random.normal(0, 2, (*size, classes)).astype(np.float32)
    weights = random.choice(np.float32([1, 3]), size)
    return labels, logits, weights


def test_the_semantic_loss_is_the_mean_of_the_hardest_weighted_pixels():
    labels, logits, weights = _batch()
    labels[0, 0] = 255
    losses = _cross_entropy(np.where(labels == 255, 0, labels), logits) * weights
    losses[labels == 255] = 0
    # 0.25 of all 30 pixels is 7.5, which rounds to the even 8.
    hardest = np.sort(losses.reshape(2, -1), axis=1)[:, -8:]
    ours = SemanticLoss(4, 255, 0.25, weight=2.0).per_image(labels, logits, weights)
    np.testing.assert_allclose(ours, 2 * hardest.mean(1), rtol=1e-5)


def test_pixels_that_lose_nothing_are_not_counted():
    labels, logits, weights = _batch()
    labels[0, 1:] = 255
    labels[1, 2:] = 255
    weights[1, 0] = 0
    losses = _cross_entropy(np.where(labels == 255, 0, labels), logits) * weights
    expected = losses[0, 0].mean(), losses[1, 1].mean()
    ours = SemanticLoss(4, 255, 1.0).per_image(labels, logits, weights)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_centre_loss_is_the_squared_error_over_the_pixels_that_have_one():
    truth = np.float32([[[[0.0], [1.0]], [[0.5], [0.25]]]])
    guess = np.float32([[[[0.5], [1.0]], [[0.0], [9.0]]]])
    weights = np.float32([[[1, 1], [1, 0]]])
    ours = CenterLoss().per_image(truth, guess, weights)
    np.testing.assert_allclose(ours, [200 * (0.25 + 0.25) / 2], rtol=1e-6)


def test_the_offset_loss_is_the_mean_absolute_error_of_both_directions():
    truth, guess = np.zeros((1, 1, 2, 2), np.float32), np.float32([[[[3, -1], [0, 4]]]])
    ours = OffsetLoss().per_image(truth, guess, np.ones((1, 1, 2)))
    np.testing.assert_allclose(ours, [0.01 * (2 + 2) / 2], rtol=1e-6)


def test_called_they_give_the_mean_over_pictures():
    labels, logits, weights = _batch()
    loss = SemanticLoss(4, 255)
    mean = loss(labels, logits, weights)
    np.testing.assert_allclose(mean, np.mean(loss.per_image(labels, logits, weights)), rtol=1e-6)
    np.testing.assert_allclose(loss(labels, logits), loss(labels, logits, np.ones_like(weights)))


def _gradient(loss, truth, guess, weights):
    guess = tf.constant(guess)
    with tf.GradientTape() as tape:
        tape.watch(guess)
        value = loss(truth, guess, weights)
    return float(value), tape.gradient(value, guess).numpy()


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_picture_that_is_ignored_altogether_gives_zero_and_no_gradient(share):
    labels, logits, weights = _batch()
    value, gradient = _gradient(SemanticLoss(4, 255, share), labels * 0 + 255, logits, weights)
    assert value == 0 and not gradient.any()


def test_heads_without_any_instance_give_zero_and_no_gradient():
    for loss, channels in ((CenterLoss(), 1), (OffsetLoss(), 2)):
        guess = np.ones((2, 3, 3, channels), np.float32)
        value, gradient = _gradient(loss, guess * 0, guess, np.zeros((2, 3, 3)))
        assert value == 0 and not gradient.any()


def test_labels_that_are_no_class_give_neither_loss_nor_gradient():
    labels, logits, weights = _batch()
    labels[:, 0] = -1
    labels[:, 1] = 4
    ignored = np.where((labels < 0) | (labels > 3), 255, labels)
    ours, theirs = (_gradient(SemanticLoss(4, 255), x, logits, weights) for x in (labels, ignored))
    assert ours[0] == theirs[0] > 0
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert not ours[1][:, :2].any()


def test_the_gradient_reaches_the_hardest_pixels_alone():
    labels, logits, weights = _batch()
    _, gradient = _gradient(SemanticLoss(4, 255, 0.2), labels, logits, weights)
    touched = gradient.any(-1).reshape(2, -1)
    assert touched.sum(1).tolist() == [6, 6]
    losses = (_cross_entropy(labels, logits) * weights).reshape(2, -1)
    for i in range(2):
        assert losses[i][touched[i]].min() > losses[i][~touched[i]].max()


def test_arithmetic_is_float32_whatever_comes_in():
    labels, logits, weights = _batch()
    loss = SemanticLoss(4, 255, 1.0)
    half = tf.constant(logits, tf.float16)
    value = loss.per_image(labels, half, weights)
    assert value.dtype == tf.float32
    np.testing.assert_array_equal(value, loss.per_image(labels, tf.cast(half, "float32"), weights))
    # Squares of these overflow in float16.
    wide = OffsetLoss(weight=1.0)(np.zeros((1, 300, 300, 2)), tf.fill((1, 300, 300, 2), 600.0))
    assert float(wide) == 600


def test_sizes_may_be_unknown():
    labels, logits, weights = _batch()
    loss = SemanticLoss(4, 255, 0.3)
    run = tf.function(
        loss,
        input_signature=[
            tf.TensorSpec((None, None, None), tf.int32),
            tf.TensorSpec((None, None, None, 4)),
            tf.TensorSpec((None, None, None)),
        ],
        autograph=False,
    )
    np.testing.assert_allclose(
        run(labels, logits, weights), loss(labels, logits, weights), rtol=1e-6
    )


@pytest.mark.parametrize(
    "loss", [SemanticLoss(7, 255, 0.5, 2.0, name="mine"), CenterLoss(3.0), OffsetLoss(0.5)]
)
def test_they_are_written_and_read_with_their_settings(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert again.weight == loss.weight


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match="top_k_percent_pixels"):
        SemanticLoss(4, 255, share)


def _model(policy):
    image = keras.Input((8, 8, 3))
    outputs = {
        name: keras.layers.Conv2D(channels, 1, name=name, dtype=policy)(image)
        for name, channels in (("semantic_logits", 4), ("center_heatmap", 1), ("offset_map", 2))
    }
    return keras.Model(image, outputs)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_fit_takes_targets_and_weights_by_output(policy):
    random = np.random.default_rng(0)
    image = random.random((4, 8, 8, 3), np.float32)
    weight = random.choice(np.float32([0, 1]), (4, 8, 8))
    targets = {
        "semantic_logits": random.integers(0, 4, (4, 8, 8)).astype(np.int32),
        "center_heatmap": random.random((4, 8, 8, 1), np.float32),
        "offset_map": random.normal(0, 3, (4, 8, 8, 2)).astype(np.float32),
    }
    weights = {"semantic_logits": weight * 0 + 1, "center_heatmap": weight, "offset_map": weight}
    losses = {
        "semantic_logits": SemanticLoss(4, 255),
        "center_heatmap": CenterLoss(),
        "offset_map": OffsetLoss(),
    }
    model = _model(policy)
    model.compile(keras.optimizers.SGD(0.0), losses)
    dataset = tf.data.Dataset.from_tensors((image, targets, weights))
    seen = model.fit(dataset, verbose=0).history["loss"][0]
    outputs = model(image)
    expected = sum(losses[key](targets[key], outputs[key], weights[key]) for key in losses)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_the_other_backends_give_the_same(backend, tmp_path):
    labels, logits, weights = _batch()
    labels[0, 0] = 255
    np.savez(tmp_path / "batch.npz", labels=labels, logits=logits, weights=weights)
    code = (
        "import sys, keras, numpy as np\n"
        "from deeplab_tf.losses.panoptic import SemanticLoss\n"
        "batch = np.load(sys.argv[1])\n"
        "loss = SemanticLoss(4, 255, 0.25)\n"
        "value = loss.per_image(batch['labels'], batch['logits'], batch['weights'])\n"
        "print(*keras.ops.convert_to_numpy(value))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "batch.npz")],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = SemanticLoss(4, 255, 0.25).per_image(labels, logits, weights)
    np.testing.assert_allclose([float(x) for x in result.stdout.split()], ours, rtol=1e-5)
