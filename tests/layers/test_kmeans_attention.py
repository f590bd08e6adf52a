"""k-means cross-attention: what a cluster takes up, and from whom."""

import keras
import numpy as np
import pytest

from deeplab_tf import keys
from deeplab_tf.layers.drop_path import DropPath
from deeplab_tf.layers.dual_path_transformer import Transformer
from deeplab_tf.layers.kmeans_attention import ClusterSums, kmeans_transformer_block
from deeplab_tf.layers.layer_scale import LayerScale
from deeplab_tf.layers.slot_masks import SlotMasks


def _inputs():
    random = np.random.RandomState(0)
    values, logits = random.normal(size=(2, 5 * 7, 6)), random.normal(size=(2, 5, 7, 4))
    return values.astype("float32"), logits.astype("float32")


def _wanted(values, logits):
    """Pixel by pixel."""
    found = np.zeros((len(values), logits.shape[-1], values.shape[-1]))
    for b, y, x in np.ndindex(logits.shape[:3]):
        found[b, np.argmax(logits[b, y, x])] += values[b, y * logits.shape[2] + x]
    return found


def test_each_pixel_counts_once_for_the_slot_of_its_largest_logit():
    values, logits = _inputs()
    sums = np.asarray(ClusterSums()([values, logits]))
    np.testing.assert_allclose(sums, _wanted(values, logits), atol=1e-5)
    np.testing.assert_allclose(sums.sum(1), values.sum(1), atol=1e-5)


def test_the_first_of_equals_wins_and_a_slot_without_pixels_gets_zeros():
    values = np.ones((1, 6, 2), "float32")
    sums = np.asarray(ClusterSums()([values, np.zeros((1, 2, 3, 4), "float32")]))
    np.testing.assert_array_equal(sums[0], [[6, 6], [0, 0], [0, 0], [0, 0]])


def test_neither_a_shift_nor_a_scale_of_the_logits_matters():
    values, logits = _inputs()
    plain, moved = (np.asarray(ClusterSums()([values, x])) for x in (logits, 100 * logits - 7))
    np.testing.assert_array_equal(plain, moved)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_values_learn_from_their_slot_and_logits_from_nothing():
    values, logits = _inputs()
    inputs = [keras.Input(x.shape[1:]) for x in (values, logits)]
    # A scale on both sides says what gradient comes through.
    scaled = [
        LayerScale(1.0, name=name)(x) for name, x in zip(("values", "logits"), inputs, strict=True)
    ]
    model = keras.Model(inputs, ClusterSums()(scaled))
    before = {w.path: np.asarray(w).copy() for w in model.weights}
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    model.train_on_batch([values, logits], np.zeros((2, 4, 6)))
    moved = {w.path: np.asarray(w) - before[w.path] for w in model.weights}
    assert not np.any(moved["logits/layer_scale"])
    sums = _wanted(values, logits)
    wanted = -2 * (sums * sums).sum((0, 1)) / sums.size  # of the mean square, by each scale
    np.testing.assert_allclose(moved["values/layer_scale"].ravel(), wanted, rtol=1e-4)


@pytest.mark.parametrize("size", [(None, None), (None, 7), (5, 7)])
def test_sizes_may_be_unknown(size):
    values, logits = _inputs()
    pixels = size[0] * size[1] if all(size) else None
    inputs = [keras.Input((pixels, 6)), keras.Input((*size, 4))]
    model = keras.Model(inputs, ClusterSums()(inputs))
    assert model.output_shape == (None, 4, 6)
    found = np.asarray(model.predict([values, logits], verbose=0))
    np.testing.assert_allclose(found, _wanted(values, logits), atol=1e-5)


def test_half_precision_does_not_overflow():
    values, logits = np.full((1, 64 * 64, 1), 20, "float16"), np.zeros((1, 64, 64, 3), "float16")
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        sums = ClusterSums()([values, logits])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.asarray(sums)[0, 0, 0] == 20 * 64 * 64 > float(np.finfo("float16").max)


def test_a_config_makes_an_equal_layer():
    layer = ClusterSums(name="sums")
    config = keras.saving.serialize_keras_object(layer)
    assert keras.saving.deserialize_keras_object(config).get_config() == layer.get_config()
    assert config["registered_name"] == "deeplab_tf>ClusterSums"


# --- A block ---


def _predict(pixels, slots):
    """Logits without a layer of their own: how alike a pixel and a slot are."""
    return {keys.MASK_LOGITS: SlotMasks(name="masks")([pixels, slots])}


def _block(**options) -> keras.Model:
    """(pixels, memory) -> memory, for 4 slots."""
    pixels, memory = keras.Input((None, None, 6)), keras.Input((4, 10))
    settings = dict(filters=8, feed_forward_channels=12, activation="gelu")
    block = Transformer(**{**settings, **options})
    after, answer = kmeans_transformer_block(pixels, memory, block, _predict, name="block")
    return keras.Model([pixels, memory], [after, answer[keys.MASK_LOGITS]])


@pytest.fixture(scope="module")
def block():
    """One with random weights."""
    model, random = _block(), np.random.RandomState(0)
    for weight in model.weights:
        low = 0.5 if weight.path.endswith(("gamma", "variance")) else -0.5
        weight.assign(random.uniform(low, 1.0, weight.shape))
    return model


def _example():
    random = np.random.RandomState(1)
    return random.normal(size=(2, 5, 7, 6)), random.normal(size=(2, 4, 10))


def test_slots_have_no_order(block):
    pixels, memory = _example()
    order = [2, 0, 3, 1]
    after, logits = block([pixels, memory])
    moved, moved_logits = block([pixels, memory[:, order]])
    np.testing.assert_allclose(moved, np.asarray(after)[:, order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved_logits, np.asarray(logits)[..., order], rtol=1e-4, atol=1e-4)


def test_pixels_have_no_place_and_pictures_do_not_meet(block):
    pixels, memory = _example()
    after = np.asarray(block([pixels, memory])[0])
    turned = block([pixels[:1, ::-1, ::-1], memory[:1]])[0]
    np.testing.assert_allclose(turned, after[:1], rtol=1e-4, atol=1e-4)


def test_more_pixels_of_a_kind_make_a_larger_step(block):
    """A sum, where attention would have a mean."""
    pixels, memory = _example()
    sums = keras.Model(block.input, block.get_layer("block.kmeans_sums").output)
    twice = np.concatenate([pixels, pixels], axis=2)
    once = np.asarray(sums([pixels, memory]))
    np.testing.assert_allclose(np.asarray(sums([twice, memory])), 2 * once, rtol=1e-4, atol=1e-4)
    assert np.abs(once).max() > 1


def test_a_new_block_leaves_slots_to_their_activation():
    pixels, memory = _example()
    wanted = keras.activations.gelu(keras.ops.convert_to_tensor(memory, "float32"), False)
    wanted = keras.activations.gelu(wanted, False)  # behind the feed-forward network again
    np.testing.assert_allclose(np.asarray(_block()([pixels, memory])[0]), wanted, atol=1e-6)


def test_each_branch_may_be_left_out_by_itself():
    dropped = [x for x in _block(keep_prob=0.8).layers if isinstance(x, DropPath)]
    names = ("kmeans_memory_conv3_bn", "memory_conv3_bn", "memory_ffn_conv2_bn")
    assert {x.name for x in dropped} == {f"block.{name}.drop_path" for name in names}
    assert {x.keep_prob for x in dropped} == {0.8}


def test_queries_keys_and_values_have_the_depths_of_the_settings():
    model = _block(filters=16)
    shapes = {
        name: model.get_layer(f"block.{name}").output.shape[-1]
        for name in ("memory_qkv_conv_bn", "pixel_v_conv_bn", "pixel_conv1_bn_act")
    }
    assert shapes == {"memory_qkv_conv_bn": 64, "pixel_v_conv_bn": 32, "pixel_conv1_bn_act": 32}
