import keras
import numpy as np
import pytest
from keras.initializers import Constant

from deeplab_tf.layers import normalization
from deeplab_tf.layers.normalization import AxesBatchNorm, BatchNorm, SummedBatchNorm


def _layer(**options):
    layer = BatchNorm(momentum=0.9, epsilon=1e-3, **options)
    layer.build((None, None, None, 4))
    return layer


@pytest.mark.parametrize("fused", [True, False])
def test_moving_variance_follows_the_unbiased_variance(fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(normalization.keras.backend, "backend", lambda: "other")
    x = np.random.RandomState(0).rand(2, 3, 3, 4).astype("float32") * 5
    layer = _layer()
    y = np.asarray(layer(x, training=True))
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.asarray(layer.moving_mean), 0.1 * mean, rtol=1e-4)
    unbiased = variance * 18 / 17
    np.testing.assert_allclose(np.asarray(layer.moving_variance), 0.9 + 0.1 * unbiased, rtol=1e-4)


def test_frozen_statistics_stay_while_gamma_and_beta_train():
    layer = _layer(freeze_statistics=True)
    x = np.random.RandomState(0).rand(2, 3, 3, 4).astype("float32")
    y = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-3), rtol=1e-5)
    assert np.all(np.asarray(layer.moving_mean) == 0)
    assert [w.name for w in layer.trainable_variables] == ["gamma", "beta"]
    assert BatchNorm.from_config(layer.get_config()).freeze_statistics


def test_a_layer_that_is_not_trainable_is_frozen_whole():
    layer = _layer()
    layer.trainable = False
    layer(np.ones((2, 3, 3, 4), "float32"), training=True)
    assert np.all(np.asarray(layer.moving_mean) == 0)
    assert layer.trainable_variables == []


def test_one_value_per_channel_gives_finite_numbers():
    layer = _layer()
    y = np.asarray(layer(np.full((1, 1, 1, 4), 3.0, "float32"), training=True))
    assert np.all(np.isfinite(y))
    assert np.all(np.isfinite(np.asarray(layer.moving_variance)))


def _terms(count=3):
    random = np.random.RandomState(0)
    return [random.normal(i, 1 + i, (2, 4, 5, 6)).astype("float32") for i in range(count)]


def _summed(count=3, kept_axes=(1,), **options):
    layer = SummedBatchNorm(count, kept_axes, momentum=0.9, epsilon=1e-3, **options)
    layer.build((None, 4, None, 6))
    return _randomized(layer)


def _randomized(layer):
    random = np.random.RandomState(1)
    for weight in layer.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return layer


def _one_by_one(layer, terms, *, training):
    """Keras' own layer for each term, and the sum; (output, moving means, moving variances)."""
    total, parts = 0.0, []
    for number, term in enumerate(terms):
        # Axes that aren't kept go together; the built-in layer keeps the last alone.
        kept = [term.shape[axis] for axis in layer.kept_axes]
        order = [axis for axis in range(4) if axis not in layer.kept_axes] + [*layer.kept_axes]
        moved = term.transpose(order)
        plain = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
        plain.build((None, int(np.prod(kept))))
        plain.set_weights([np.asarray(weight)[number].ravel() for weight in layer.weights])
        found = np.asarray(plain(moved.reshape(-1, np.prod(kept)), training=training))
        total = total + found.reshape(moved.shape).transpose(np.argsort(order))
        parts.append([np.asarray(w) for w in (plain.moving_mean, plain.moving_variance)])
    return total, *(np.stack(values) for values in zip(*parts, strict=True))


@pytest.mark.parametrize("kept_axes", [(1,), (1, 3)])
@pytest.mark.parametrize("training", [False, True])
def test_a_summed_batch_norm_is_the_sum_of_one_for_each_term(training, kept_axes):
    layer, terms = _summed(kept_axes=kept_axes), _terms()
    shape = tuple(n if axis in kept_axes else 1 for axis, n in enumerate((1, 4, 5, 6)))
    assert {tuple(w.shape) for w in layer.weights} == {(3, *shape)}
    wanted, mean, variance = _one_by_one(layer, terms, training=training)
    np.testing.assert_allclose(np.asarray(layer(terms, training=training)), wanted, atol=1e-5)
    # By the biased variance, as Keras does outside of its fused kernel.
    np.testing.assert_allclose(np.asarray(layer.moving_mean).reshape(mean.shape), mean, atol=1e-5)
    moved = np.asarray(layer.moving_variance).reshape(variance.shape)
    np.testing.assert_allclose(moved, variance, rtol=1e-4)
    scales, shift = layer.scale_and_shift()
    by_moving = sum(s * x for s, x in zip(np.asarray(scales), terms, strict=True)) + shift
    np.testing.assert_allclose(np.asarray(layer(terms)), by_moving, atol=1e-5)


@pytest.mark.parametrize("how", ["freeze_statistics", "not trainable"])
def test_frozen_statistics_of_a_summed_batch_norm_stay(how):
    layer, terms = _summed(freeze_statistics=how == "freeze_statistics"), _terms()
    layer.trainable = how == "freeze_statistics"
    assert not layer.uses_batch_statistics(True)
    before = [np.asarray(w).copy() for w in layer.weights]
    wanted = np.asarray(layer(terms, training=False))
    np.testing.assert_array_equal(np.asarray(layer(terms, training=True)), wanted)
    assert all(np.array_equal(w, old) for w, old in zip(layer.weights, before, strict=True))


def test_a_summed_batch_norm_comes_back_from_its_config():
    layer = _summed(2, (1, 3), freeze_statistics=True)
    again = SummedBatchNorm.from_config(layer.get_config())
    assert (again.count, again.kept_axes, again.momentum) == (2, (1, 3), 0.9)
    assert again.freeze_statistics
    assert _summed().compute_output_shape([(2, 4, 5, 6)] * 3) == (2, 4, 5, 6)


def test_a_summed_batch_norm_gives_half_precision_of_float32_statistics():
    layer = _summed(dtype="mixed_float16")
    terms = [300 * keras.ops.cast(x, "float16") for x in _terms()]
    found = layer(terms, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    # Squares of these don't fit into 16 bits.
    assert np.all(np.isfinite(np.asarray(found)))
    assert np.asarray(layer.moving_variance).max() > 65504


@pytest.mark.parametrize(
    ("kept_axes", "shape"), [((1,), (4,)), ((1, 3), (1, 4, 1, 6)), ((), (1,)), ((3,), (6,))]
)
@pytest.mark.parametrize("training", [False, True])
def test_kept_axes_have_statistics_of_their_own(training, kept_axes, shape):
    layer, x = _kept(kept_axes), _terms(1)[0]
    assert {tuple(w.shape) for w in layer.weights} == {shape}
    wide = tuple(n if axis in kept_axes else 1 for axis, n in enumerate(x.shape))
    gamma, beta, mean, variance = (np.asarray(w).reshape(wide) for w in layer.weights)
    moved = mean, variance
    if training:
        axes = tuple(axis for axis in range(4) if axis not in kept_axes)
        old, mean, variance = moved, x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        count = x.size / mean.size
        # Only a kernel of one axis takes the unbiased variance.
        followed = variance * (count / (count - 1) if len(kept_axes) < 2 else 1.0)
        moved = [0.9 * a + 0.1 * b for a, b in zip(old, (mean, followed), strict=True)]
    wanted = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(np.asarray(layer(x, training=training)), wanted, atol=1e-5)
    for weight, value in zip((layer.moving_mean, layer.moving_variance), moved, strict=True):
        np.testing.assert_allclose(np.asarray(weight), value.reshape(shape), rtol=1e-4, atol=1e-6)


def test_all_numbers_may_share_one_scale_that_begins_small():
    layer = AxesBatchNorm((), momentum=0.9, epsilon=1e-3, gamma_initializer=Constant(0.1))
    x = _terms(1)[0]
    y = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(y.std(), 0.1, rtol=1e-2)
    np.testing.assert_allclose(y, (x - x.mean()) * 0.1 / np.sqrt(x.var() + 1e-3), atol=1e-6)
    again = AxesBatchNorm.from_config(layer.get_config())
    again.build((None, 2, 3, 4))
    assert again.kept_axes == () and np.asarray(again.gamma) == np.float32(0.1)


def _kept(kept_axes, **options):
    layer = AxesBatchNorm(kept_axes, momentum=0.9, epsilon=1e-3, **options)
    layer.build((None, 4, None, 6))
    return _randomized(layer)
