import numpy as np
import pytest

from deeplab_tf.layers import normalization
from deeplab_tf.layers.normalization import BatchNorm


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
