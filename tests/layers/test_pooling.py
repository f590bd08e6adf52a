import keras
import numpy as np

from deeplab_tf.layers.pooling import WindowPooling


def _pooled(layer, x, open_size):
    side = None if open_size else x.shape[1]
    image = keras.Input((side, side, x.shape[-1]))
    return np.asarray(keras.Model(image, layer(image))(x))


def test_open_and_fixed_sizes_pool_alike():
    x = np.random.RandomState(0).rand(2, 9, 9, 3).astype("float32")
    layer = WindowPooling((5, 7), (2, 1))
    fixed = _pooled(layer, x, open_size=False)
    assert fixed.shape == (2, 3, 3, 3)
    np.testing.assert_allclose(_pooled(layer, x, open_size=True), fixed, rtol=1e-5)
    np.testing.assert_allclose(fixed[:, 0, 0], x[:, :5, :7].mean((1, 2)), rtol=1e-5)


def test_a_map_smaller_than_the_window_is_averaged_whole():
    x = np.random.RandomState(0).rand(2, 3, 3, 2).astype("float32")
    layer = WindowPooling((5, 5), (4, 5))
    for open_size in (False, True):
        y = _pooled(layer, x, open_size)
        np.testing.assert_allclose(y, x.mean((1, 2), keepdims=True), rtol=1e-5)
