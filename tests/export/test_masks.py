"""An exported mask transformer finds what the model finds."""

import io

import numpy as np
import pytest
from painted_slots import BALL, DIVISOR, PaintedSlots, scene
from PIL import Image

from deeplab_tf.errors import InputError
from deeplab_tf.export import export_model
from deeplab_tf.export.saved_model import ServedModel
from deeplab_tf.inference.runner import load_runner
from deeplab_tf.inference.segment import segment


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "1"
    pictures = [scene(70, 90)[0], scene(128, 64)[0]]
    report = export_model(PaintedSlots(), folder, to="saved_model", calibration=pictures)
    assert report["panoptic_quality"] == 1.0 and report["agreement"] == 1.0
    return folder


def test_masks_are_merged_inside_a_saved_model(served):
    image, _ = scene(97, 129)
    ours, theirs = segment(PaintedSlots(), image), segment(str(served), image)
    np.testing.assert_array_equal(ours.panoptic_label, theirs.panoptic_label)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert ours.segments == pytest.approx(theirs.segments) or [
        (s.id, s.area, s.box) for s in ours.segments
    ] == [(s.id, s.area, s.box) for s in theirs.segments]


def test_its_signatures_give_labels_segments_and_each_pictures_size(served):
    image, truth = scene(64, 80)
    model = ServedModel(served)
    found = model.outputs(image)
    assert set(found) == {
        *("panoptic_label", "instance_score", "labels", "segment_ids", "segment_classes"),
        *("segment_areas", "segment_boxes", "segment_scores"),
    }
    assert found["labels"].dtype == np.uint8
    assert (found["labels"] == truth // DIVISOR).mean() > 0.95
    assert sorted(found["segment_classes"]) == [0, 1, BALL, BALL]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    np.testing.assert_array_equal(model.run_encoded(file.getvalue()), found["panoptic_label"])


def test_a_tflite_file_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(InputError, match="export a SavedModel"):
        export_model(PaintedSlots(), tmp_path / "x.tflite", size=65)


def test_an_exported_one_is_run_but_not_explained(served):
    from deeplab_tf.inference.explain import explain

    with pytest.raises(InputError, match="from a preset or a folder"):
        explain(load_runner(str(served)), scene(33, 33)[0])
