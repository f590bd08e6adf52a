"""Axial attention is what the paper's equation says, at any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deeplab_tf.layers import axial_attention
from deeplab_tf.layers.axial_attention import AxialAttention, axial_attention_2d
from deeplab_tf.layers.conv import BatchNormSettings
from deeplab_tf.models.macs import count

SIZES = dict(key_depth=4, value_depth=6, num_heads=2)
CHANNELS = 3
# The axes that each batch norm takes its statistics over, of [N, L, C], [3, N, heads, L, L] and
# [2, N, heads, L, depth].
AXES = {
    "batch_norm_qkv": (0, 1),
    "batch_norm_similarity": (1, 3, 4),
    "batch_norm_retrieved_output": (1, 3),
}


def _image(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype("float32")


def _randomized(layer):
    """With weights none of which is as it was made."""
    random = np.random.RandomState(1)
    for weight in layer.weights:
        positive = weight.path.endswith(("gamma", "moving_variance"))
        low, high = (0.5, 1.5) if positive else (-1.0, 1.0)
        weight.assign(random.uniform(low, high, weight.shape))
    return layer


def _layer(axis=2, **options):
    layer = AxialAttention(axis, **{**SIZES, **options})
    layer.build((None, None, None, CHANNELS))
    return _randomized(layer)


def _values(layer) -> dict[str, np.ndarray]:
    """Name below the layer's -> float64."""
    return {w.path.partition("/")[2]: np.asarray(w).astype(np.float64) for w in layer.weights}


def _attend(layer, x, *, training=False):
    """Eq. 4 of the paper, one pair of pixels after the other: (output, moments of each norm)."""
    weights, moments = _values(layer), {}
    heads, key_depth = layer.num_heads, layer.key_depth

    def norm(name, values):
        w = {key.partition("/")[2]: v for key, v in weights.items() if key.startswith(name)}
        if training:
            over = dict(axis=AXES[name], keepdims=True)
            moments[name] = values.mean(**over), values.var(**over)
            w["moving_mean"], w["moving_variance"] = moments[name]
        scaled = (values - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-3)
        return scaled * w["gamma"] + w["beta"]

    x = np.asarray(x, np.float64)
    x = x.transpose(0, 2, 1, 3) if layer.axis == 1 else x
    batch, lines, length, channels = x.shape
    x = x.reshape(-1, length, channels)
    x = norm("batch_norm_qkv", x @ weights["qkv_kernel"])
    parts = np.split(x, (key_depth, 2 * key_depth), axis=-1)
    query, key, value = (part.reshape(len(x), length, heads, -1) for part in parts)
    most = axial_attention.MAX_SPAN - 1
    rows = {m - ell: np.clip(m - ell, -most, most) + most for ell, m in np.ndindex(length, length)}

    terms = np.zeros((3, len(x), heads, length, length))
    for n, h, ell, m in np.ndindex(*terms.shape[1:]):
        q, k, row = query[n, ell, h], key[n, m, h], rows[m - ell]
        by_position = q @ weights["query_rpe"][row], k @ weights["key_rpe"][row]
        terms[:, n, h, ell, m] = (q @ k, *by_position)
    logits = norm("batch_norm_similarity", terms).sum(0)

    found = np.zeros((2, len(x), heads, length, value.shape[-1]))
    for n, h, ell in np.ndindex(*logits.shape[:3]):
        seen = [m for m in range(length) if layer.span is None or abs(m - ell) <= layer.span // 2]
        share = np.exp(logits[n, h, ell, seen] - logits[n, h, ell, seen].max())
        for weight, m in zip(share / share.sum(), seen, strict=True):
            found[0, n, h, ell] += weight * value[n, m, h]
            found[1, n, h, ell] += weight * weights["value_rpe"][rows[m - ell]]
    found = norm("batch_norm_retrieved_output", found).sum(0)
    found = found.transpose(0, 2, 1, 3).reshape(batch, lines, length, -1)
    return found.transpose(0, 2, 1, 3) if layer.axis == 1 else found, moments


@pytest.mark.parametrize("span", [None, 1, 3])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("most_logits", [2**24, 0])  # at once, or line after line
def test_it_equals_loops_over_pairs_of_pixels(axis, span, most_logits, monkeypatch):
    monkeypatch.setattr(axial_attention, "_MOST_LOGITS", most_logits)
    layer, image = _layer(axis, span=span), _image(2, 4, 5, CHANNELS)
    wanted, _ = _attend(layer, image)
    found = np.asarray(layer(image))
    assert found.shape == layer.compute_output_shape(image.shape) == (2, 4, 5, 6)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_open_and_fixed_sides_give_the_same_and_any_size_goes_in():
    for axis in (1, 2):
        layer = _layer(axis)
        sides = keras.Input((None, None, CHANNELS))
        any_size = keras.Model(sides, layer(sides))
        assert any_size.output.shape == (None, None, None, 6)
        # Traced once for all sizes, as in an exported file.
        graph = tf.function(any_size, input_signature=[tf.TensorSpec((None,) * 3 + (CHANNELS,))])
        for size in ((5, 4), (1, 7), (6, 1), (1, 1)):
            image = _image(2, *size, CHANNELS)
            fixed = keras.Input((*size, CHANNELS))
            wanted = np.asarray(keras.Model(fixed, layer(fixed))(image))
            np.testing.assert_allclose(np.asarray(graph(image)), wanted, atol=1e-5)
            np.testing.assert_allclose(wanted, _attend(layer, image)[0], atol=1e-5)


def test_line_after_line_learns_the_same(monkeypatch):
    image, layer = tf.constant(_image(2, 4, 5, CHANNELS)), _layer(1)
    found = {}
    for most_logits in (2**24, 0):
        monkeypatch.setattr(axial_attention, "_MOST_LOGITS", most_logits)

        @tf.function
        def gradients():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(image, training=False) ** 2)
            return tape.gradient(loss, layer.trainable_variables)

        found[most_logits] = [np.asarray(tf.convert_to_tensor(x)) for x in gradients()]
    for at_once, by_line in zip(*found.values(), strict=True):
        np.testing.assert_allclose(by_line, at_once, rtol=1e-4, atol=1e-5)


def test_pixels_beyond_the_table_share_its_last_rows(monkeypatch):
    monkeypatch.setattr(axial_attention, "MAX_SPAN", 3)
    layer, image = _layer(), _image(1, 2, 7, CHANNELS)
    assert layer.query_rpe.shape == (5, 2)
    np.testing.assert_allclose(np.asarray(layer(image)), _attend(layer, image)[0], atol=1e-5)


def test_a_side_longer_than_the_table_is_attended_along():
    layer = _layer()
    assert layer.value_rpe.shape == (509, 3)
    found = np.asarray(layer(_image(1, 1, 300, CHANNELS)))
    assert found.shape == (1, 1, 300, 6) and np.all(np.isfinite(found))


def test_a_span_hides_what_is_farther_and_nothing_else():
    image, changed = _image(1, 1, 9, CHANNELS), _image(1, 1, 9, CHANNELS)
    changed[0, 0, 4] += 3.0

    def moved(span):
        layer = _layer(span=span)
        return np.abs(np.asarray(layer(changed)) - np.asarray(layer(image))).max((0, 1, 3)) > 1e-4

    assert np.flatnonzero(moved(5)).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(moved(1)).tolist() == [4]
    assert moved(None).all()
    whole, wide = _layer(), _layer(span=17)
    np.testing.assert_allclose(np.asarray(whole(image)), np.asarray(wide(image)), atol=1e-6)


def test_rows_do_not_see_each_other():
    layer, image = _layer(axis=2), _image(1, 3, 4, CHANNELS)
    alone = np.asarray(layer(image[:, 1:2]))
    np.testing.assert_allclose(np.asarray(layer(image))[:, 1:2], alone, atol=1e-6)


def test_half_precision_stays_finite_and_keeps_float32_variables():
    layer = _layer(dtype="mixed_float16", span=3)
    image = 50.0 * _image(1, 5, 6, CHANNELS)
    for training in (False, True):
        found = layer(image, training=training)
        assert keras.backend.standardize_dtype(found.dtype) == "float16"
        assert np.all(np.isfinite(np.asarray(found)))
    assert {w.dtype for w in layer.weights} == {"float32"}


@pytest.mark.parametrize("axis", [1, 2])
def test_training_normalises_by_the_batch_and_moves_the_statistics(axis):
    layer, image = _layer(axis, batch_norm=BatchNormSettings(1e-3, 0.9)), _image(2, 4, 5, CHANNELS)
    before = _values(layer)
    wanted, moments = _attend(layer, image, training=True)
    np.testing.assert_allclose(np.asarray(layer(image, training=True)), wanted, atol=2e-5)
    after = _values(layer)
    pixels = 2 * 4 * 5
    for name, (mean, variance) in moments.items():
        if name == "batch_norm_qkv":  # as of every convolution: of an unbiased variance
            variance = variance * pixels / (pixels - 1)
        for moment, value in (("moving_mean", mean), ("moving_variance", variance)):
            path = f"{name}/{moment}"
            moved = 0.9 * before[path] + 0.1 * value.reshape(before[path].shape)
            np.testing.assert_allclose(after[path], moved, atol=1e-5, err_msg=path)
    learnt = [path for path in before if "moving_" not in path]
    assert all(np.array_equal(before[path], after[path]) for path in learnt)


def test_frozen_statistics_are_used_and_stay():
    layer, image = _layer(), _image(2, 4, 5, CHANNELS)
    norms = [x for x in layer._flatten_layers() if hasattr(x, "freeze_statistics")]
    assert len(norms) == 3
    for norm in norms:
        norm.freeze_statistics = True
    before, wanted = _values(layer), np.asarray(layer(image, training=False))
    np.testing.assert_allclose(np.asarray(layer(image, training=True)), wanted, atol=1e-6)
    after = _values(layer)
    assert all(np.array_equal(before[path], after[path]) for path in before)


@pytest.mark.parametrize("training", [False, True])
def test_every_variable_learns_but_for_what_a_softmax_cancels(training):
    layer, image = _layer(span=3), tf.constant(_image(2, 3, 5, CHANNELS))
    with tf.GradientTape() as tape:
        found = layer(image, training=training)
        loss = tf.reduce_sum(tf.sin(3.0 * found) * tf.constant(_image(2, 3, 5, 6, seed=5)))
    variables = layer.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    sizes = {
        v.path.partition("/")[2]: float(tf.norm(tf.convert_to_tensor(g)))
        for v, g in zip(variables, gradients, strict=True)
    }
    still = sizes.pop("batch_norm_similarity/beta")
    assert len(sizes) == 9 and min(sizes.values()) > 1e-2, sizes
    assert still < 1e-4


def test_batch_statistics_and_moving_ones_give_the_same_where_they_are_equal():
    """The factors go into the queries in one case, over the logits in the other."""
    layer, image = _layer(), _image(2, 4, 5, CHANNELS)
    _, moments = _attend(layer, image, training=True)
    for name, (mean, variance) in moments.items():
        norm = getattr(layer, name)
        norm.moving_mean.assign(mean.reshape(norm.moving_mean.shape))
        norm.moving_variance.assign(variance.reshape(norm.moving_variance.shape))
    by_moving = np.asarray(layer(image, training=False))
    by_batch = np.asarray(layer(image, training=True))
    np.testing.assert_allclose(by_moving, by_batch, atol=2e-5)


def test_a_keras_file_brings_it_back(tmp_path):
    image = keras.Input((None, None, CHANNELS))
    settings = BatchNormSettings(epsilon=1e-5, momentum=0.9)
    layer = AxialAttention(1, **SIZES, span=3, batch_norm=settings, name="attention")
    model = _randomized(keras.Model(image, layer(image)))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("attention").get_config() == layer.get_config()
    assert again.get_layer("attention").batch_norm == settings
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    picture = _image(1, 4, 5, CHANNELS)
    np.testing.assert_array_equal(np.asarray(again(picture)), np.asarray(model(picture)))


@pytest.mark.parametrize(
    ("axis", "options", "words"),
    [
        (3, {}, r"axis is 1 \(height\) or 2 \(width\); got 3"),
        (1, {"key_depth": 5}, r"multiples of num_heads \(2\); got 5 and 6"),
        (1, {"value_depth": 3}, r"multiples of num_heads \(2\); got 4 and 3"),
        (1, {"span": 4}, "span is an odd number of pixels, or None; got 4"),
    ],
)
def test_wrong_arguments_are_named(axis, options, words):
    with pytest.raises(ValueError, match=words):
        AxialAttention(axis, **{**SIZES, **options})


def test_multiply_adds_are_those_of_a_calculation_by_hand():
    # Of each pixel: 3 channels times q, k and v; of each pair three logits and two retrievals.
    height, width, pixel, pair = 6, 5, 3 * (4 + 4 + 6), 4 + 4 + 4 + 6 + 6
    for axis, length in ((1, height), (2, width)):
        image = keras.Input((None, None, CHANNELS))
        model = keras.Model(image, AxialAttention(axis, **SIZES)(image))
        found = count(model, (height, width))
        assert found.multiply_adds == height * width * (pixel + length * pair)
        tables = 509 * (2 + 2 + 3)
        norms = 2 * (14 + 3 * 2 + 2 * 6)
        assert found.parameters == 3 * 14 + tables + norms


@pytest.mark.parametrize("size", [(7, 5), (6, 4)])
def test_strides_drop_rows_between_the_axes_and_columns_after_them(size):
    def build(strides):
        image = keras.Input((*size, CHANNELS))
        options = dict(filters=4, num_heads=2, strides=strides, name="attention")
        return _randomized(keras.Model(image, axial_attention_2d(image, **options)))

    model, picture = build(2), _image(1, *size, CHANNELS)
    height, width = (model.get_layer(f"attention.{axis}_axis") for axis in ("height", "width"))
    wanted = width(height(picture)[:, ::2])[:, :, ::2]
    np.testing.assert_allclose(np.asarray(model(picture)), np.asarray(wanted), atol=1e-6)
    # Along the height every row is seen, so what is left is the same without strides there.
    plain = build(1)
    assert not [x for x in plain.layers if isinstance(x, layers.MaxPooling2D)]
    assert (height.key_depth, height.value_depth) == (4, 8)
