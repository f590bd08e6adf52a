"""The CRF as a layer: the numbers of the one for arrays, its gradients, training through it."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from deeplab_tf.errors import InputError
from deeplab_tf.postprocess import lattice_ops
from deeplab_tf.postprocess.crf import CRF_PRESETS, CrfParameters, dense_crf
from deeplab_tf.postprocess.crf_layer import DenseCRF
from deeplab_tf.postprocess.permutohedral import Lattice

SMALL = CrfParameters(sigma_alpha=8, sigma_beta=20, sigma_gamma=1.5, iterations=3)


def _pictures(batch=2, height=9, width=13, classes=4, seed=0):
    """Flat fields with noise, a weak network's logits, and labels."""
    random = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    labels = np.stack([(x // 5 + y // 4 + number) % classes for number in range(batch)])
    image = random.integers(20, 236, (classes, 3))[labels]
    image = np.clip(image + random.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
    logits = random.normal(size=labels.shape + (classes,)) + 1.5 * np.eye(classes)[labels]
    return image, logits.astype(np.float32), labels


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _compare(layer, parameters, image, logits, tolerance=1e-4):
    """The softmax of the layer's logits is Q of the CRF for arrays."""
    ours = ops.convert_to_numpy(ops.softmax(layer([logits, image.astype(np.float32)])))
    for picture, one, q in zip(image, logits, ours, strict=True):
        expected = dense_crf(picture, logits=one, parameters=parameters)
        np.testing.assert_allclose(q, expected, atol=tolerance)
    return ours


@pytest.mark.parametrize("name", CRF_PRESETS)
def test_presets_give_the_numbers_of_the_other_one(name):
    image, logits, _ = _pictures(height=19, width=23, classes=6)
    logits[0, 0, 0, 0] -= 40  # below the smallest probability
    ours = _compare(DenseCRF(name), CRF_PRESETS[name], image, logits)
    start = ops.convert_to_numpy(ops.softmax(logits))
    assert np.abs(ours - start).max() > 0.3


@pytest.mark.parametrize(
    "change",
    [
        dict(normalization="before"),
        dict(normalization="after"),
        dict(normalization="none", w1=0.01, w2=0.02),
        dict(w1=0),
        dict(w2=0),
        dict(w1=0, w2=0, compatibility=np.eye(4)),
        dict(iterations=0),
        dict(sigma_alpha=(5, 9), sigma_beta=(9, 30, 60), sigma_gamma=(3, 1)),
        dict(compatibility=np.random.default_rng(0).uniform(0, 1, (4, 4))),
        dict(sigma_beta=0.3),  # codes of several parts
    ],
)
def test_other_parameters_do_too(change):
    parameters = dataclasses.replace(SMALL, **change)
    image, logits, _ = _pictures()
    _compare(DenseCRF(parameters), parameters, image, logits)


def test_vertices_and_weights_are_those_of_the_lattice():
    random = np.random.default_rng(0)
    for dimensions, number, spread in ((2, 1, 9.0), (5, 2, 60.0), (5, 3, 1000.0)):
        features = random.uniform(0, spread, (150, dimensions)).astype(np.float32)
        features[:20] = np.round(features[:20])  # many on borders
        room = 150 * (dimensions + 1)
        plan = lattice_ops.Plan.of_features([0] * dimensions, [spread] * dimensions, room)
        assert len(plan.parts) == number
        parts = lattice_ops.elevated_parts(features)
        found = [ops.convert_to_numpy(part) for part in lattice_ops.place(parts, plan)]
        ids, weights, following, before, fit = found
        lattice = Lattice(features)
        assert fit and ids.max() + 1 == lattice.vertices
        np.testing.assert_allclose(weights, lattice.weights.reshape(weights.shape), atol=1e-6)
        # The same corners, numbered otherwise: one number here for each number there.
        pairs = {*zip(ids.ravel().tolist(), lattice.corner_ids.tolist(), strict=True)}
        assert len(pairs) == lattice.vertices
        names = dict(pairs)
        for axis, (order, ends) in enumerate(lattice._lines):
            links = {*zip(order[:-1].tolist(), order[1:].tolist(), strict=True)}
            links -= {(order[end - 1], order[end]) for end in ends[:-1]}
            ours = {(v, w) for v, w in enumerate(following[axis].tolist()) if w < room}
            assert {(names[v], names[w]) for v, w in ours} == links
            back = {(w, v) for v, w in enumerate(before[axis].tolist()) if w < room}
            assert back == ours


def test_gradients_are_those_of_finite_differences():
    import tensorflow as tf

    image, logits, labels = _pictures(batch=2, height=6, width=7)
    layer = DenseCRF(SMALL, train_compatibility=True)
    pictures = image.astype(np.float32)

    def loss(values):
        log_q = ops.log_softmax(layer([values, pictures]))
        return -ops.sum(ops.one_hot(labels, 4) * log_q)

    values = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = loss(values)
    gradients = tape.gradient(result, [values, *layer.trainable_variables])
    assert len(gradients) == 4
    random, step = np.random.default_rng(1), 0.005
    for variable, gradient in zip([None, *layer.trainable_variables], gradients, strict=True):
        direction = random.normal(size=gradient.shape).astype(np.float32)
        results = []
        for side in (step, -step):
            if variable is None:
                results.append(float(loss(values + side * direction)))
            else:
                start = ops.convert_to_numpy(variable.value)
                variable.assign(start + side * direction)
                results.append(float(loss(values)))
                variable.assign(start)
        numeric = (results[0] - results[1]) / (2 * step)
        analytic = float((ops.convert_to_numpy(gradient) * direction).sum())
        assert abs(numeric - analytic) < 0.002 * abs(analytic) + 0.005, variable


def test_no_gradient_goes_to_the_picture():
    import tensorflow as tf

    image, logits, _ = _pictures(batch=1, height=4, width=5)
    pictures = tf.constant(image, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(pictures)
        result = tf.reduce_sum(DenseCRF(SMALL)([logits, pictures]) ** 2)
    assert tape.gradient(result, pictures) is None


@pytest.fixture(scope="module")
def trained():
    """A layer that mixes classes, and the CRF: the model, trained, and its losses."""
    keras.utils.set_random_seed(3)
    image, logits, labels = _pictures(batch=8, height=12, width=12)
    pictures = keras.Input((12, 12, 3), name="image")
    weak = keras.Input((12, 12, 4), name="logits")
    x = keras.layers.Dense(4, kernel_initializer="identity", name="mix")(weak)
    crf = DenseCRF(SMALL, iterations=2, train_compatibility=True, name="crf")
    model = keras.Model([weak, pictures], crf([x, pictures]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    before = [ops.convert_to_numpy(weight.value) for weight in model.trainable_variables]
    inputs = [logits, image.astype(np.float32)]
    history = model.fit(inputs, labels, batch_size=4, epochs=12, verbose=0, shuffle=False)
    return model, inputs, labels, before, history.history["loss"]


def test_training_through_it_lowers_the_loss(trained):
    model, inputs, labels, before, losses = trained
    assert losses[-1] < 0.6 * losses[0]
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert np.abs(ops.convert_to_numpy(weight.value) - old).max() > 1e-3, weight.path
    assert {w.name for w in model.get_layer("crf").trainable_variables} == {
        "bilateral_weight",
        "gaussian_weight",
        "compatibility",
    }


def test_what_was_learned_gives_the_same_numbers_without_a_graph(trained):
    model, (logits, image), labels, *_ = trained
    kernel, bias = map(ops.convert_to_numpy, model.get_layer("mix").get_weights())
    layer = model.get_layer("crf")
    learned = dataclasses.replace(
        layer.parameters,
        w1=float(ops.convert_to_numpy(layer.bilateral_weight)),
        w2=float(ops.convert_to_numpy(layer.gaussian_weight)),
        compatibility=ops.convert_to_numpy(layer.compatibility),
    )
    found = model.predict([logits, image], verbose=0)
    for number, picture in enumerate(image.astype(np.uint8)):
        q = dense_crf(picture, logits=logits[number] @ kernel + bias, parameters=learned)
        np.testing.assert_allclose(_softmax(found[number]), q, atol=1e-4)
    assert (found.argmax(-1) == labels).mean() > (logits.argmax(-1) == labels).mean()


def test_a_saved_model_has_the_same_numbers(trained, tmp_path):
    model, inputs, *_ = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("crf").get_config() == model.get_layer("crf").get_config()
    np.testing.assert_array_equal(
        loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
    )


def test_the_config_is_its_arguments():
    layer = DenseCRF(
        CrfParameters(compatibility=1 - np.eye(3), sigma_beta=(1, 2, 3)),
        iterations=4,
        train_compatibility=True,
        max_vertices=99,
        min_probability=0.0,
        name="crf",
    )
    same = DenseCRF.from_config(layer.get_config())
    assert same.get_config() == layer.get_config()
    assert same.parameters == layer.parameters and same.parameters.iterations == 4


def test_room_for_fewer_vertices_is_enough_or_gives_nan():
    image, logits, _ = _pictures()
    enough = DenseCRF(SMALL, max_vertices=350)
    _compare(enough, SMALL, image, logits)
    few = ops.convert_to_numpy(DenseCRF(SMALL, max_vertices=20)([logits, image]))
    assert np.isnan(few).all()


def test_it_stays_in_single_precision():
    image, logits, _ = _pictures()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = DenseCRF(SMALL, train_compatibility=True)
        outputs = layer([ops.cast(logits, "float16"), image])
    finally:
        keras.config.set_dtype_policy(policy)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert {weight.dtype for weight in layer.weights} == {"float32"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(parameters="v9"), "deeplab_v1_large_fov"),
        (dict(parameters={"w3": 1}), "no parameter 'w3'"),
        (dict(max_vertices=0), "max_vertices"),
        (dict(min_probability=1.0), "min_probability"),
        (dict(iterations=-1), "iterations"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        DenseCRF(**arguments)


@pytest.mark.parametrize(
    ("logits", "image", "words"),
    [
        ((None, None, 9, 4), (None, None, 9, 3), "one fixed size"),
        ((None, 8, 9, 4), (None, 9, 9, 3), "one fixed size"),
        ((None, 8, 9, 4), (None, 8, 9, 1), "one fixed size"),
        ((None, 4000, 9, 4), (None, 4000, 9, 3), "kernel widths are too small"),
    ],
)
def test_inputs_of_other_shapes_are_refused(logits, image, words):
    layer = DenseCRF(dataclasses.replace(SMALL, sigma_alpha=0.001, sigma_beta=0.001))
    with pytest.raises(InputError, match=words):
        layer.build([logits, image])


def test_a_matrix_of_other_classes_is_refused():
    layer = DenseCRF(CrfParameters(compatibility=np.eye(3)))
    with pytest.raises(InputError, match="3 classes, logits of 4"):
        layer.build([(None, 8, 9, 4), (None, 8, 9, 3)])


BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_gives_the_same_numbers_and_trains_on_another_backend(backend):
    chosen = "lowers_the_loss or without_a_graph"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + [__file__, "-k", chosen],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
