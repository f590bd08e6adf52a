"""Answers for training only, and one loss of all outputs."""

import keras
import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.models.mask_transformer import MaskTransformer

MAIN = (keys.SEMANTIC_LOGITS, keys.PIXEL_FEATURE, keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS)
EARLIER = keys.AUXILIARY.format(0, keys.MASK_LOGITS)
IMAGES = np.random.RandomState(0).uniform(-1, 1, (2, 3, 4, 3)).astype("float32")
TARGETS = {"one": np.ones((2, 3, 4, 1), "float32"), "two": np.zeros((2, 3, 4, 1), "float32")}


@keras.saving.register_keras_serializable(package="tests")
class Few(MaskTransformer):
    """Each output is a convolution of its own."""

    def __init__(self, earlier=True, name="few", **kwargs):
        image = keras.Input((None, None, 3))
        outputs = {}
        for number, key in enumerate((EARLIER, *MAIN) if earlier else MAIN):
            layer = keras.layers.Conv2D(number + 1, 1, kernel_regularizer="l2", name=key)
            outputs[key] = layer(image)
        super().__init__(image, outputs, name=name, **kwargs)
        self._finish({"earlier": earlier}, {})


@keras.saving.register_keras_serializable(package="tests")
class Distance(keras.losses.Loss):
    """Of every output from one target. It draws a number for nothing."""

    takes_all_outputs = True

    def __init__(self, target="one", **kwargs):
        super().__init__(**kwargs)
        self.target = target
        self.seed_generator = keras.random.SeedGenerator(0)

    def __call__(self, targets, outputs):
        keras.random.uniform((), seed=self.seed_generator)
        target = targets[self.target]
        return sum(keras.ops.mean(keras.ops.square(x - target)) for x in outputs.values())

    def get_config(self):
        return {**super().get_config(), "target": self.target}


def _compiled(loss=None, *, earlier=True, **options):
    model = Few(earlier)
    model.compile(keras.optimizers.SGD(0.05), loss or Distance(), **options)
    return model


def _penalty(model):
    return sum(float(loss) for loss in model.losses)


def test_earlier_answers_are_for_training_only():
    model = Few()
    assert set(model.output) == {EARLIER, *MAIN}
    assert set(model(IMAGES)) == set(model(IMAGES, training=False)) == set(MAIN)
    assert set(model(IMAGES, training=True)) == {EARLIER, *MAIN}
    assert set(model.predict(IMAGES, verbose=0)) == set(MAIN)


@pytest.mark.parametrize("asked", [None, False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_model_around_it_gets_the_main_answer(asked, training):
    model, image = Few(), keras.Input((None, None, 3))
    around = keras.Model(image, model(image, training=asked))
    wanted, found = model(IMAGES), around(IMAGES, training=training)
    assert set(found) == set(MAIN)
    for key, x in found.items():
        np.testing.assert_array_equal(np.asarray(x), np.asarray(wanted[key]))


def test_the_loss_is_asked_once_for_all_outputs_and_weights_are_penalised_too():
    model = _compiled()
    outputs = {key: np.asarray(x) for key, x in model(IMAGES, training=True).items()}
    distances = {key: np.mean((x - 1) ** 2) for key, x in outputs.items()}
    penalty = _penalty(model)
    assert penalty > 0
    found = model.evaluate(IMAGES, TARGETS, verbose=0)
    assert found == pytest.approx(sum(distances[key] for key in MAIN) + penalty, rel=1e-4)
    found = model.fit(IMAGES, TARGETS, verbose=0).history["loss"]
    assert found[0] == pytest.approx(sum(distances.values()) + penalty, rel=1e-4)


def test_every_output_learns():
    model = _compiled()
    losses = model.fit(IMAGES, TARGETS, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    before = Few()
    for weight, value in zip(model.weights, before.get_weights(), strict=True):
        assert np.any(np.asarray(weight) != value), weight.path


def test_weights_of_pixels_are_a_target():
    with pytest.raises(dl.InputError, match="'semantic_weight'; got sample_weight"):
        _compiled(run_eagerly=True).evaluate(
            IMAGES, TARGETS, sample_weight=np.ones(2, "float32"), verbose=0
        )


def test_xla_is_left_out_where_it_can_not_follow():
    assert _compiled().supports_jit == (keras.backend.backend() != "tensorflow")
    model = _compiled(loss={key: "mse" for key in Few().output})
    assert model.supports_jit


def test_the_random_state_of_the_loss_is_a_part_of_the_model():
    model = _compiled()
    seeds = [variable for variable in model.variables if "seed" in variable.path]
    assert len(seeds) == 1
    before = np.asarray(seeds[0]).copy()
    model.fit(IMAGES, TARGETS, verbose=0)
    assert np.any(np.asarray(seeds[0]) != before)


def test_a_loss_for_each_output_works_as_in_every_model():
    targets = {key: np.ones(x.shape, "float32") for key, x in Few(earlier=False)(IMAGES).items()}
    model = _compiled({key: "mse" for key in MAIN}, earlier=False)
    losses = model.fit(IMAGES, targets, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_keras_file_goes_on_with_its_loss(tmp_path):
    model = _compiled(Distance("two"))
    model.fit(IMAGES, TARGETS, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.target == "two" and again.optimizer.iterations == 1
    assert again.evaluate(IMAGES, TARGETS, verbose=0) == pytest.approx(
        model.evaluate(IMAGES, TARGETS, verbose=0), rel=1e-6
    )
    bare = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for weight, value in zip(bare.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(value))


def test_it_is_public():
    assert issubclass(dl.MaXDeepLab, MaskTransformer)
