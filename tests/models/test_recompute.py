"""Maps that are computed again give what maps that are kept give."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import deeplab_tf as dl
from deeplab_tf.models.recompute import Recomputed, Step, best_cuts

OTHER_BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
IMAGE = np.random.RandomState(0).uniform(0, 255, (2, 65, 49, 3)).astype("float32")


def _model(**options) -> dl.DeepLabV3Plus:
    return dl.DeepLabV3Plus(
        3,
        depth_multiplier=0.25,
        aspp_convs_filters=8,
        decoder_filters=8,
        dropout_rate=0.5,
        **options,
    )


def _step(model, start):
    """Loss, gradients and variables after a step, from given variables."""
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    weights = [weight.value for weight in model.trainable_weights]

    @tf.function
    def run(image):
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(model(image, training=True))
            loss = sum(tf.reduce_mean(tf.square(tf.cast(x, "float32"))) for x in outputs)
        return loss, tape.gradient(loss, weights)

    loss, gradients = run(tf.constant(IMAGE))
    return float(loss), gradients, [_array(variable) for variable in model.variables]


def _array(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).copy()


def _largest(arrays) -> float:
    return max(float(np.max(np.abs(np.float64(array)))) for array in arrays)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_gradients_statistics_and_random_states_are_the_same(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = _model()
        start = [_array(variable) for variable in model.variables]
        kept = _step(model, start)
        model.set_recompute()
        again = _step(model, start)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    tolerance = 1e-6 if policy == "float32" else 0.02
    assert again[0] == pytest.approx(kept[0], rel=tolerance)
    for ours, theirs in zip(again[1:], kept[1:], strict=True):
        apart = [a - b for a, b in zip(map(np.float64, ours), map(np.float64, theirs), strict=True)]
        assert _largest(apart) < tolerance * _largest(theirs)
    # Of dropout, and of batch norm.
    paths = [
        v.path for v, a, b in zip(model.variables, start, again[2], strict=True) if (a != b).any()
    ]
    assert any("seed" in path for path in paths) and any("moving_mean" in path for path in paths)
    assert not any(path.endswith("kernel") for path in paths)


def test_a_mask_transformer_has_all_its_answers_in_training_alone():
    model = dl.KMaXDeepLab(3, "convnext_tiny", num_mask_slots=4, image_shape=(33, 33, 3))
    image = IMAGE[:1, :33, :33]
    kept = model(image, training=True)
    model.set_recompute()
    again = model(image, training=True)
    assert [*again] == [*kept] and len(again) > 20
    key = "auxiliary_0_transformer_class_logits"
    np.testing.assert_allclose(again[key], kept[key], atol=1e-4)
    assert key not in model(image, training=False)


def test_the_graph_after_it_is_the_one_before():
    model = _model()
    before = [_array(weight) for weight in model.weights]
    paths = [weight.path for weight in model.weights]
    outputs = np.asarray(model(IMAGE))
    cost = dl.models.macs.count(model, (65, 49))
    model.set_recompute()
    assert [weight.path for weight in model.weights] == paths
    assert model.get_config() == _model().get_config() | {"name": model.name}
    np.testing.assert_array_equal(np.asarray(model(IMAGE)), outputs)
    assert dl.models.macs.count(model, (65, 49)) == cost
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(_array(weight), value)
    model.set_recompute(False)
    np.testing.assert_array_equal(np.asarray(model(IMAGE)), outputs)


def test_layers_that_are_called_several_times_have_the_same_statistics(
    narrow_backbones, random_weights
):
    model = dl.DeepLabV2(3, "resnet_v1_18", image_pyramid=(1.0, 0.5), dropout_rate=0.0)
    random_weights(model)
    start = [_array(variable) for variable in model.variables]
    kept = keras.tree.flatten(model(IMAGE, training=True))
    statistics = [_array(variable) for variable in model.variables]
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    model.set_recompute()
    again = keras.tree.flatten(model(IMAGE, training=True))
    for ours, theirs in zip(again, kept, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for variable, value in zip(model.variables, statistics, strict=True):
        np.testing.assert_allclose(_array(variable), value, rtol=1e-5, err_msg=variable.path)


def test_fit_learns_the_same():
    image, labels = IMAGE, np.random.RandomState(1).randint(0, 3, (2, 65, 49))
    found = []
    for recompute in (False, True):
        keras.utils.set_random_seed(0)
        model = _model()
        model.set_recompute(recompute)
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        history = model.fit(image, labels, batch_size=2, epochs=3, verbose=0, shuffle=False)
        found.append(history.history["loss"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert found[0][-1] != found[0][0]


# --- Where it is cut ---


def _chain(*sizes: int) -> tuple[list[Step], dict[int, int]]:
    """Steps in a row, each from the tensor before it."""
    steps = [Step((place,), (place + 1,), size) for place, size in enumerate(sizes)]
    return steps, dict(enumerate((1, *sizes)))


def test_a_long_chain_is_cut_into_about_the_root_of_its_length():
    steps, sizes = _chain(*[10] * 100)
    cuts = best_cuts(steps, {0}, {100}, sizes)
    assert 7 <= len(cuts) <= 13
    lengths = np.diff([0, *cuts, 100])
    assert lengths.max() <= 15


def test_cuts_are_where_little_passes():
    steps, sizes = _chain(*([100, 100, 100, 1] * 8))
    cuts = best_cuts(steps, {0}, {32}, sizes)
    assert cuts and all(cut % 4 == 0 for cut in cuts)


def test_what_is_kept_until_the_end_counts_once():
    # All of eight maps are joined at the end: no cut can save them.
    steps = [Step((0,), (place + 1,), 10) for place in range(8)]
    steps.append(Step(tuple(range(1, 9)), (9,), 10))
    assert best_cuts(steps, {0}, {9}, dict.fromkeys(range(10), 10)) == []


def test_segments_hold_all_layers_once():
    image = keras.Input((9, 9, 3))
    x = image
    for _ in range(12):
        x = layers.Conv2D(3, 3, padding="same")(x)
    model = keras.Model(image, x)
    parts = [part for part, _, _ in Recomputed(model)._segments]
    found = [layer.name for part in parts for layer in part.layers if layer.weights]
    assert len(parts) > 1
    assert found == [layer.name for layer in model.layers if layer.weights]


# --- Other backends ---

OTHER = """
import keras, numpy as np
from keras import layers
from deeplab_tf.models.base import SegmentationModel

class Small(SegmentationModel):
    def __init__(self):
        image = x = keras.Input((17, 17, 3))
        for _ in range(6):
            x = layers.Conv2D(4, 3, padding="same")(x)
            x = layers.Dropout(0.2)(layers.BatchNormalization()(x))
        super().__init__(image, layers.Conv2D(3, 1)(x))
        self._finish({}, {})

random = np.random.RandomState(0)
image = random.uniform(0, 1, (2, 17, 17, 3)).astype("float32")
labels = random.randint(0, 3, (2, 17, 17))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
found = []
for recompute in (False, True):
    keras.utils.set_random_seed(0)
    model = Small()
    model.set_recompute(recompute)
    assert not recompute or len(model._recomputed) > 1
    model.compile(keras.optimizers.SGD(0.1), loss)
    history = model.fit(image, labels, batch_size=2, epochs=3, verbose=0, shuffle=False)
    found.append(history.history["loss"])
np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
assert found[0][0] != found[0][2]
"""


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_the_other_backends_learn_the_same_too(backend):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    run = subprocess.run(
        [sys.executable, "-c", OTHER], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
