"""The heads of mask transformers."""

import keras
import numpy as np
import pytest

from deeplab_tf.models.mask_heads import auxiliary_semantic_head, mask_predictor

SLOTS, CHANNELS = 5, 7
OPTIONS = dict(channels=CHANNELS, pixel_channels=8, head_channels=4)


def _normal(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype("float32")


def _heads(**options) -> keras.Model:
    pixels, slots = keras.Input((None, None, 3)), keras.Input((SLOTS, 6))
    return keras.Model([pixels, slots], mask_predictor(pixels, slots, slots, **OPTIONS, **options))


def _run(model, **options):
    found = model([_normal(2, 9, 12, 3), _normal(2, SLOTS, 6, seed=1)], **options)
    return {name: np.asarray(x) for name, x in found.items()}


def test_every_slot_has_a_mask_and_a_class():
    found = _run(_heads())
    assert {name: x.shape for name, x in found.items()} == {
        "pixel_space_normalized_feature": (2, 9, 12, 8),
        "pixel_space_mask_logits": (2, 9, 12, SLOTS),
        "transformer_class_logits": (2, SLOTS, CHANNELS),
    }
    lengths = np.linalg.norm(found["pixel_space_normalized_feature"], axis=-1)
    # Where ReLU leaves nothing, there is none.
    np.testing.assert_allclose(lengths[lengths > 0], 1.0, rtol=1e-4)
    assert np.mean(lengths > 0) > 0.5


def test_slots_begin_with_nine_in_ten_for_void():
    model = _heads()
    model.get_layer("transformer_class_head").kernel.assign(np.zeros((1, 6, CHANNELS)))
    share = np.asarray(keras.ops.softmax(_run(model)["transformer_class_logits"]))
    np.testing.assert_allclose(share[..., -1], 0.9, rtol=1e-5)
    np.testing.assert_allclose(share[..., :-1], 0.1 / (CHANNELS - 1), rtol=1e-5)


def test_masks_begin_alike_and_no_slot_has_a_scale_of_its_own():
    model = _heads()
    masks = _run(model, training=True)["pixel_space_mask_logits"]
    assert masks.mean() == pytest.approx(0.0, abs=1e-5)
    assert masks.std() == pytest.approx(0.1, rel=0.05)
    norm = model.get_layer("pixel_space_mask_batch_norm")
    assert {tuple(w.shape) for w in norm.weights} == {(1,)}


def test_a_mask_is_what_pixels_and_its_kernel_have_in_common():
    model = _heads()
    inner = keras.Model(model.input, model.get_layer("transformer_mask_head.BatchNorm").output)
    kernels = np.asarray(inner([_normal(2, 9, 12, 3), _normal(2, SLOTS, 6, seed=1)]))
    found = _run(model)
    products = np.einsum("bhwd,bid->bhwi", found["pixel_space_normalized_feature"], kernels)
    wanted = products * 0.1 / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(found["pixel_space_mask_logits"], wanted, atol=1e-5)


def test_a_scope_is_before_every_name():
    def names(**options):
        inner = [x for x in _heads(**options).layers if not isinstance(x, keras.layers.InputLayer)]
        return [layer.name for layer in inner]

    assert names(scope="block0.") == [f"block0.{name}" for name in names()]


def _semantic(low_level, **options) -> keras.Model:
    image = keras.Input((None, None, 3))
    x = keras.layers.MaxPooling2D(4, padding="same")(image)
    stages = [(image, 2)] if low_level else None
    settings = dict(atrous_rates=(), aspp_channels=4, channels=4, **options)
    return keras.Model(image, auxiliary_semantic_head(x, stages, 5, head_channels=4, **settings))


@pytest.mark.parametrize("low_level", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_semantic_head_has_the_size_of_its_finest_map(low_level, activation):
    model = _semantic(low_level, activation=activation)
    found = np.asarray(model(_normal(1, 9, 13, 3)))
    assert found.shape == ((1, 9, 13, 5) if low_level else (1, 3, 4, 5))
    scopes = {w.path.split(".")[0].split("/")[0] for w in model.weights}
    wanted = {"semantic_head_without_last_layer", "semantic_last_layer"}
    assert scopes == wanted | ({"semantic_decoder"} if low_level else set())
    other = {"relu": "gelu", "gelu": "relu"}[activation]
    assert not [layer.name for layer in model.layers if layer.name.endswith(other)]
