"""The Keras metric equals the NumPy one, also inside a compiled model."""

import keras
import numpy as np
import pytest

from deeplab_tf.metrics import keras_mean_iou
from deeplab_tf.metrics.keras_mean_iou import MeanIoU
from deeplab_tf.metrics.mean_iou import ConfusionMatrix


def batches(classes: int, count: int = 3):
    random = np.random.default_rng(classes)
    for _ in range(count):
        labels = random.integers(0, classes - 1, (2, 9, 7))
        labels[random.random(labels.shape) < 0.2] = 255
        yield labels, random.normal(size=(2, 9, 7, classes)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 5, 21])
def test_it_equals_the_confusion_matrix(classes):
    metric, total = MeanIoU(classes), ConfusionMatrix(classes, 255)
    assert float(metric.result()) == 0.0
    for labels, logits in batches(classes):
        metric.update_state(labels, logits)
        total.update(labels, logits.argmax(-1))
        assert float(metric.result()) == pytest.approx(total.mean_iou, abs=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_counts_stay_exact_where_float32_and_int32_end(monkeypatch):
    monkeypatch.setattr(keras_mean_iou, "_CARRY", 8)
    metric, total = MeanIoU(3), ConfusionMatrix(3, 255)
    for labels, logits in batches(3, 20):
        metric.update_state(labels, logits)
        total.update(labels, logits.argmax(-1))
    low, high = (keras.ops.convert_to_numpy(v) for v in (metric._low, metric._high))
    assert low.max() < 8 < high.max()
    np.testing.assert_array_equal((high * 8 + low).reshape(3, 3), total.matrix)


def test_pixels_without_weight_and_labels_outside_do_not_count():
    labels, logits = next(iter(batches(4)))
    weight = (np.arange(labels.size).reshape(labels.shape) % 3 != 0).astype(np.float32)
    metric, total = MeanIoU(4), ConfusionMatrix(4, 255)
    stray = np.where(labels == 255, 77, labels)
    metric.update_state(stray, logits, sample_weight=weight)
    total.update(np.where(weight > 0, labels, 255), logits.argmax(-1))
    assert float(metric.result()) == pytest.approx(total.mean_iou, abs=1e-6)


def test_it_runs_in_a_compiled_model_and_survives_its_config():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(3, 1)(image))
    metric = MeanIoU.from_config(MeanIoU(3, ignore_label=7, name="iou").get_config())
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=7),
        metrics=[metric],
    )
    random = np.random.default_rng(1)
    images = random.normal(size=(4, 8, 8, 3)).astype(np.float32)
    labels = random.integers(0, 3, (4, 8, 8))
    labels[:, 0] = 7
    scores = model.evaluate(images, labels, batch_size=2, verbose=0, return_dict=True)
    total = ConfusionMatrix(3, 7)
    total.update(labels, model.predict(images, verbose=0).argmax(-1))
    assert scores["iou"] == pytest.approx(total.mean_iou, abs=1e-6)
