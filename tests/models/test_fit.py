"""`compile` and `fit` as with any Keras model: every way of running a step learns the same set."""

import keras
import numpy as np
import pytest

import deeplab_tf as dl


def pictures(count: int = 8):
    """Pictures 0..255 whose class is seen in their red, a row of ignored labels in each."""
    random = np.random.default_rng(0)
    labels = np.kron(random.integers(0, 2, (count, 3, 3)), np.ones((11, 11), int))
    images = random.integers(0, 100, (count, 33, 33, 3)).astype(np.float32)
    images[..., 0] += 150.0 * labels
    labels[:, 0] = 255
    return images, labels.astype(np.int32)


def small(**options):
    keras.utils.set_random_seed(1)
    model = dl.DeepLabV3Plus(
        2,
        "mobilenet_v2",
        depth_multiplier=0.25,
        output_stride=32,
        atrous_rates=(),
        aspp_convs_filters=8,
        decoder_filters=8,
        **options,
    )
    model.set_batch_norm(momentum=0.8)
    return model


def compiled(model, **options):
    model.compile(
        optimizer=keras.optimizers.Adam(0.02),
        loss=dl.losses.SoftmaxCrossEntropy(2),
        metrics=[dl.metrics.MeanIoU(2)],
        **options,
    )
    return model


def fitted(model, epochs: int = 10) -> dict:
    return model.fit(*pictures(), batch_size=4, epochs=epochs, shuffle=False, verbose=0).history


def learns(history: dict) -> None:
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < 0.6 * history["loss"][0]


def test_fit_lowers_the_loss_and_reports_mean_iou():
    model = compiled(small())
    history = fitted(model)
    learns(history)
    assert history["mean_iou"][-1] > 0.7
    # The moving statistics have kept up with so few steps.
    assert model.evaluate(*pictures(), verbose=0, return_dict=True)["mean_iou"] > 0.7


def test_half_precision_learns_with_float32_logits():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = compiled(small())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    learns(fitted(model))
    assert model(pictures(1)[0]).dtype == "float32"


@pytest.fixture(scope="module")
def plain_losses():
    return fitted(compiled(small(dropout_rate=0.0)), epochs=2)["loss"]


@pytest.mark.parametrize("options", [{"steps_per_execution": 2}, {"run_eagerly": True}])
def test_each_way_to_run_steps_gives_the_same_losses(options, plain_losses):
    other = fitted(compiled(small(dropout_rate=0.0), **options), epochs=2)
    np.testing.assert_allclose(other["loss"], plain_losses, rtol=2e-3)


def test_xla_gives_the_same_answer():
    model, images = small(), pictures(2)[0]
    plain = model.predict(images, verbose=0)
    model.compile(jit_compile=True)
    np.testing.assert_allclose(model.predict(images, verbose=0), plain, atol=1e-4)


def test_a_distribution_strategy_learns():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = compiled(small())
    learns(fitted(model))
    assert strategy.num_replicas_in_sync == 1
