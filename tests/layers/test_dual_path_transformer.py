"""The two paths of a mask transformer, and the attention that joins them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.layers.conv import BatchNormSettings
from deeplab_tf.layers.drop_path import DropPath
from deeplab_tf.layers.dual_path_transformer import (
    JointAttention,
    LearnedMemory,
    Transformer,
    Unflatten,
    dual_path_transformer,
)
from deeplab_tf.models.macs import count

SIZES = dict(key_depth=4, value_depth=6, num_heads=2)
DEPTHS = 2 * SIZES["key_depth"] + SIZES["value_depth"]
BLOCK = Transformer(filters=4, num_heads=2, feed_forward_channels=10)
PIXELS, MEMORY = 5, 3


def _normal(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype("float32")


def _randomized(layer):
    """With weights none of which is as it was made."""
    random = np.random.RandomState(1)
    for weight in layer.weights:
        if "seed" not in weight.path:
            weight.assign(random.uniform(0.3, 1.0, weight.shape))
    return layer


def _attention(**options):
    layer = JointAttention(**{**SIZES, **options})
    layer.build([(None, None, DEPTHS)] * 2)
    return _randomized(layer)


def _attend(layer, asking, answering, *, training=False):
    """Slot after slot, in float64: (output [B, N, depth], moments of each norm)."""
    heads, moments = layer.num_heads, {}

    def parts(x):
        ends = (layer.key_depth, 2 * layer.key_depth)
        return [
            part.reshape(*x.shape[:2], heads, -1)
            for part in np.split(x.astype(np.float64), ends, axis=-1)
        ]

    def norm(name, values, axes):
        own = getattr(layer, name)
        shape = [1 if axis in axes else n for axis, n in enumerate(values.shape)]
        gamma, beta, mean, variance = (np.asarray(w).reshape(shape) for w in own.weights)
        if training:
            mean, variance = values.mean(axes, keepdims=True), values.var(axes, keepdims=True)
            moments[name] = mean, variance
        return (values - mean) / np.sqrt(variance + layer.batch_norm.epsilon) * gamma + beta

    query = parts(asking)[0]
    keys = np.concatenate([parts(x)[1] for x in answering], axis=1)
    values = np.concatenate([parts(x)[2] for x in answering], axis=1)
    logits = np.zeros((len(query), heads, query.shape[1], keys.shape[1]))
    for b, h, n, m in np.ndindex(*logits.shape):
        logits[b, h, n, m] = query[b, n, h] @ keys[b, m, h]
    share = np.exp(norm("batch_norm_similarity", logits, (0, 2, 3)))
    share /= share.sum(-1, keepdims=True)
    found = np.zeros((*logits.shape[:3], values.shape[-1]))
    for b, h, n in np.ndindex(*found.shape[:3]):
        found[b, h, n] = share[b, h, n] @ values[b, :, h]
    found = norm("batch_norm_retrieved_value", found, (0, 2))
    return found.transpose(0, 2, 1, 3).reshape(len(query), query.shape[1], -1), moments


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("answering", [(4,), (7, 4), (1, 2, 3)])
def test_several_sets_are_attended_to_in_one_softmax(answering, training):
    layer = _attention()
    asking, *sets = (_normal(2, n, DEPTHS, seed=n) for n in (4, *answering))
    wanted, moments = _attend(layer, asking, sets, training=training)
    before = {
        name: [np.asarray(w).copy() for w in getattr(layer, name).weights[2:]] for name in moments
    }
    found = np.asarray(layer([asking, *sets], training=training))
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert layer.compute_output_shape([x.shape for x in (asking, *sets)]) == found.shape
    for name, (mean, variance) in moments.items():
        norm = getattr(layer, name)
        if name == "batch_norm_similarity":  # of one axis, where the variance is unbiased
            pairs = 2 * 4 * sum(answering)
            variance = variance * pairs / (pairs - 1)
        for weight, old, new in zip(norm.weights[2:], before[name], (mean, variance), strict=True):
            followed = 0.99 * old + 0.01 * new.reshape(old.shape)
            np.testing.assert_allclose(np.asarray(weight), followed, atol=1e-6)


def test_the_official_shapes_of_both_norms():
    shapes = {w.path.partition("/")[2]: tuple(w.shape) for w in _attention().weights}
    assert {s for path, s in shapes.items() if path.startswith("batch_norm_similarity/")} == {(2,)}
    retrieved = {s for path, s in shapes.items() if path.startswith("batch_norm_retrieved_value/")}
    assert retrieved == {(1, 2, 1, 3)}


def test_frozen_statistics_are_those_of_a_prediction():
    layer, x = _attention(), _normal(2, 4, DEPTHS)
    wanted = np.asarray(layer([x, x], training=False))
    for norm in (layer.batch_norm_similarity, layer.batch_norm_retrieved_value):
        norm.freeze_statistics = True
    np.testing.assert_allclose(np.asarray(layer([x, x], training=True)), wanted, atol=1e-6)


def test_attention_comes_back_from_its_config():
    layer = _attention(batch_norm=BatchNormSettings(epsilon=1e-5, momentum=0.9))
    again = JointAttention.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.batch_norm_retrieved_value.epsilon == 1e-5
    assert again.batch_norm_similarity.momentum == 0.9


def test_depths_are_shared_by_the_heads():
    for depths in ((5, 6), (4, 5)):
        with pytest.raises(ValueError, match="multiples of num_heads"):
            JointAttention(*depths, num_heads=2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_the_whole(policy):
    x = _normal(2, 4, DEPTHS)
    for training in (False, True):
        wanted = np.asarray(_attention()([x, x], training=training))
        found = _attention(dtype=policy)([x, x], training=training)
        assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
        found = np.asarray(keras.ops.cast(found, "float32"))
        np.testing.assert_allclose(found, wanted, atol=0.1)


def _network(size=(None, None), **options) -> keras.Model:
    """One block behind a map and a memory."""
    pixels, memory = keras.Input((*size, PIXELS)), keras.Input((4, MEMORY))
    block = Transformer(**{**vars(BLOCK), **options})
    outputs = dual_path_transformer(pixels, memory, block, name="stage.block1_transformer")
    return keras.Model([pixels, memory], outputs)


def _run(model, pixels, memory, **options):
    return [np.asarray(x) for x in model([pixels, memory], **options)]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_new_block_hands_on_what_it_gets(activation):
    """Branches begin at zero. The memory is activated at the end of each part, pixels aren't."""
    model = _network(activation=activation)
    pixels, memory = _normal(2, 3, 5, PIXELS), _normal(2, 4, MEMORY)
    activate = getattr(keras.activations, activation)
    found = _run(model, pixels, memory)
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_allclose(found[1], np.asarray(activate(activate(memory))), atol=1e-6)


def test_pixels_meet_through_the_memory_of_the_next_block_alone():
    model = _randomized(_network())
    pixels, memory = _normal(1, 3, 5, PIXELS), _normal(1, 4, MEMORY)
    changed = pixels.copy()
    changed[0, 1, 2] += 1.0
    (before, slots), (after, new_slots) = (_run(model, x, memory) for x in (pixels, changed))
    differs = np.abs(after - before).max(-1)[0] > 1e-6
    assert np.argwhere(differs).tolist() == [[1, 2]]
    assert np.all(np.abs(new_slots - slots).max(-1) > 1e-6)


def test_slots_have_no_order():
    model = _randomized(_network())
    pixels, memory = _normal(1, 3, 5, PIXELS), _normal(1, 4, MEMORY)
    order = [2, 0, 3, 1]
    found, moved = _run(model, pixels, memory), _run(model, pixels, memory[:, order])
    np.testing.assert_allclose(moved[0], found[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved[1], found[1][:, order], rtol=1e-5, atol=1e-5)


def test_open_and_fixed_sides_give_the_same():
    model, memory = _randomized(_network()), _normal(2, 4, MEMORY)
    specs = [tf.TensorSpec((None, None, None, PIXELS)), tf.TensorSpec((None, 4, MEMORY))]
    graph = tf.function(lambda *x: model([*x], training=False), specs)
    for size in ((3, 5), (1, 1), (4, 2)):
        pixels = _normal(2, *size, PIXELS)
        fixed = _network(size)
        for weight, value in zip(fixed.weights, model.weights, strict=True):
            weight.assign(value)
        for found, wanted in zip(graph(pixels, memory), _run(fixed, pixels, memory), strict=True):
            np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)


def test_each_branch_is_dropped_by_itself():
    model = _network(keep_prob=0.5)
    names = {layer.name.split(".")[2] for layer in model.layers if isinstance(layer, DropPath)}
    assert names == {"memory_conv3_bn", "memory_ffn_conv2_bn", "pixel_conv3_bn"}
    assert all(x.keep_prob == 0.5 for x in model.layers if isinstance(x, DropPath))
    assert not any(isinstance(x, DropPath) for x in _network().layers)


def test_a_blocks_cost_is_counted():
    image = keras.Input((None, None, 3))
    memory = LearnedMemory(4, MEMORY, name="memory")(image)
    outputs = dual_path_transformer(image, memory, BLOCK, name="block")
    filters, pixels, slots = BLOCK.filters, 6 * 7, 4
    kernels = {
        slots: 2 * filters * MEMORY
        + 2 * filters * 4 * filters
        + 2 * filters * MEMORY
        + 20 * MEMORY,
        pixels: 2 * filters * 3 + 2 * filters * 4 * filters + 2 * filters * 3,
    }
    attention = (slots * (pixels + slots) + pixels * slots) * 3 * filters
    found = count(keras.Model(image, outputs), (6, 7)).multiply_adds
    assert found == sum(places * size for places, size in kernels.items()) + attention


def test_a_memory_is_the_same_for_every_picture():
    layer = LearnedMemory(4, MEMORY, name="encoder.memory_feature")
    found = np.asarray(layer(np.zeros((3, 2, 2, 1), "float32")))
    assert found.shape == (3, 4, MEMORY) and np.all(found == found[:1]) and np.ptp(found[0]) > 0
    assert [w.path for w in layer.weights] == ["encoder.memory_feature/memory_feature"]
    again = LearnedMemory.from_config(layer.get_config())
    assert again.compute_output_shape((None, 8, 8, 3)) == (None, 4, MEMORY)


def test_rows_become_pixels_again():
    pixels = _normal(2, 3, 5, 4)
    found = Unflatten()([pixels.reshape(2, 15, 4), np.zeros((2, 3, 5, 1), "float32")])
    np.testing.assert_array_equal(np.asarray(found), pixels)
