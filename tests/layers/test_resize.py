import keras
import numpy as np
import pytest

from deeplab_tf.layers.resize import (
    ResizeLike,
    ResizeOffsetsLike,
    resize_bilinear,
    resize_nearest,
    resize_rows,
    scale_dimension,
)


def _reference_bilinear(x, size):
    """Two lerps per axis in float64, corners on corners."""
    for axis, out in ((1, size[0]), (2, size[1])):
        n = x.shape[axis]
        position = np.arange(out) * ((n - 1) / (out - 1) if out > 1 else 0.0)
        lower = np.minimum(np.floor(position).astype(int), n - 1)
        upper = np.minimum(lower + 1, n - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = out
        weight = (position - lower).reshape(shape)
        x = np.take(x, lower, axis) * (1 - weight) + np.take(x, upper, axis) * weight
    return x


@pytest.mark.parametrize("size", [(129, 65), (9, 9), (1, 1), (33, 2)])
def test_bilinear_resize_keeps_the_corners_and_equals_the_reference(size):
    x = np.random.RandomState(0).rand(2, 33, 17, 3).astype("float32")
    ours = np.asarray(resize_bilinear(x, size))
    np.testing.assert_allclose(ours, _reference_bilinear(x, size), atol=2e-5)
    np.testing.assert_allclose(ours[:, 0, 0], x[:, 0, 0], atol=1e-6)
    if min(size) > 1:
        np.testing.assert_allclose(ours[:, -1, -1], x[:, -1, -1], atol=1e-5)


@pytest.mark.parametrize("size", [(129, 65), (12, 9), (1, 1), (33, 2)])
def test_some_rows_are_those_of_the_whole(size):
    x = np.random.RandomState(0).rand(2, 33, 17, 3).astype("float32")
    whole = np.asarray(resize_bilinear(x, size))
    for rows in (np.arange(size[0]), np.array([size[0] - 1, 0, 0, size[0] // 2])):
        some = np.asarray(resize_rows(x, rows.astype("int32"), size))
        np.testing.assert_allclose(some, whole[:, rows], atol=1e-6)


def test_nearest_resize_rounds_ties_upwards():
    labels = np.arange(5, dtype="int32").reshape(1, 5, 1, 1)
    # 3 rows from 5 lie on 0, 2, 4; 9 rows lie on halves, which go up.
    assert np.asarray(resize_nearest(labels, (3, 1))).ravel().tolist() == [0, 2, 4]
    nine = np.asarray(resize_nearest(labels, (9, 1))).ravel().tolist()
    assert nine == [0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("size", "scale", "wanted"), [(513, 1 / 16, 33), (98, 0.25, 25), (97, 0.5, 49)]
)
def test_scale_dimension_follows_the_corner_rule(size, scale, wanted):
    assert scale_dimension(size, scale) == wanted


def test_resize_like_works_with_open_and_fixed_sizes():
    x, reference = keras.Input((None, None, 2)), keras.Input((None, None, 3))
    model = keras.Model([x, reference], ResizeLike()([x, reference]))
    a, b = np.random.rand(1, 5, 7, 2), np.zeros((1, 17, 23, 3))
    assert model.output.shape == (None, None, None, 2)
    np.testing.assert_allclose(
        np.asarray(model([a, b])), _reference_bilinear(a, (17, 23)), atol=1e-5
    )
    half = ResizeLike(scale=0.5)
    assert half([a, b]).shape == (1, 9, 12, 2)
    assert ResizeLike.from_config(half.get_config()).scale == 0.5


def test_half_precision_comes_out_as_half_precision():
    x = keras.ops.cast(np.random.rand(1, 4, 4, 1), "bfloat16")
    assert keras.backend.standardize_dtype(resize_bilinear(x, (7, 7)).dtype) == "bfloat16"


@pytest.mark.parametrize(
    ("side", "scale", "wanted"), [(129, 0.5, 64), (98, 0.75, 73), (7, 1.5, 10)]
)
def test_without_aligned_corners_a_scale_is_the_distance_of_pixels(side, scale, wanted):
    """As PyTorch resizes by a factor: rounding the size doesn't stretch the picture."""
    ramp = np.arange(side, dtype="float32").reshape(1, side, 1, 1).repeat(4, axis=2)
    fixed = np.asarray(ResizeLike(scale, align_corners=False)([ramp, ramp]))[0, :, 0, 0]
    positions = np.clip((np.arange(wanted) + 0.5) / scale - 0.5, 0, side - 1)
    np.testing.assert_allclose(fixed, positions, atol=1e-4)
    # Open sides take another way.
    image = keras.Input((None, None, 1))
    model = keras.Model(image, ResizeLike(scale, align_corners=False)([image, image]))
    np.testing.assert_allclose(np.asarray(model(ramp))[0, :, 0, 0], positions, atol=1e-4)


def _to_center(height, width):
    """Offsets (y, x) from every pixel of a map to the middle of it: [1, H, W, 2]."""
    y, x = np.indices((height, width))
    offsets = np.stack([(height - 1) / 2 - y, (width - 1) / 2 - x], -1)
    return offsets[None].astype("float32")


@pytest.mark.parametrize("size", [(17, 33), (9, 9), (4, 6), (33, 2)])
def test_offsets_grow_with_the_map_and_still_point_at_the_same_place(size):
    x, image = keras.Input((None, None, 2)), keras.Input((None, None, 3))
    any_size = keras.Model([x, image], ResizeOffsetsLike()([x, image]))
    assert any_size.output.shape == (None, None, None, 2)
    small, picture = _to_center(5, 9), np.zeros((1, *size, 3), "float32")
    for found in (
        ResizeOffsetsLike()([small, picture]),
        any_size([small, picture]),
        any_size.predict_on_batch([small, picture]),
    ):
        np.testing.assert_allclose(np.asarray(found), _to_center(*size), atol=1e-4)


def test_offsets_of_a_scale_and_of_single_rows_are_finite_and_exact():
    small, picture = _to_center(5, 9), np.zeros((1, 33, 65, 3), "float32")
    half = ResizeOffsetsLike(scale=0.5)([small, picture])
    np.testing.assert_allclose(np.asarray(half), _to_center(17, 33), atol=1e-4)
    again = ResizeOffsetsLike.from_config(ResizeOffsetsLike(scale=0.5).get_config())
    assert type(again) is ResizeOffsetsLike and again.scale == 0.5
    same = np.asarray(ResizeOffsetsLike()([small, small]))
    np.testing.assert_array_equal(same, small)
    # Of a single row nothing says how far it reaches.
    for single in ((1, 1), (1, 4)):
        found = ResizeOffsetsLike()([_to_center(*single), picture])
        assert np.all(np.isfinite(np.asarray(found)))


def test_offsets_keep_their_precision_as_a_layer_is_told():
    layer = ResizeOffsetsLike(dtype="float32")
    found = layer([keras.ops.cast(_to_center(5, 9), "float16"), np.zeros((1, 1025, 9, 3))])
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(np.asarray(found)[0, ::256, 0, 0], [512, 256, 0, -256, -512])
