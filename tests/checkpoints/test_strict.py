"""Nothing missing, extra or misshapen goes by, and nothing is assigned then."""

import logging

import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.checkpoints.strict import Source, assign
from deeplab_tf.checkpoints.tf1 import source_name

KERNEL = "MobilenetV2/expanded_conv_3/expand/weights"


def _load(model, arrays, **options):
    return assign(model, Source("some/file", "TF1 checkpoint", arrays), **options)


def _changed(arrays, **changes):
    """A copy in which a name is given another array, or None to leave it out."""
    result = {**arrays, **{name.replace("__", "/"): array for name, array in changes.items()}}
    return {name: array for name, array in result.items() if array is not None}


@pytest.mark.usefixtures("unchanged")
class TestMistakes:
    def test_a_removed_variable_is_named(self, model, tf1_arrays):
        with pytest.raises(dl.InputError, match=rf"^some/file doesn't fit .*1 missing: {KERNEL}\."):
            _load(model, _changed(tf1_arrays, **{KERNEL: None}))

    def test_a_renamed_variable_is_named_with_the_nearest(self, model, tf1_arrays):
        renamed = KERNEL.replace("expand/", "expansion/")
        arrays = _changed(tf1_arrays, **{KERNEL: None, renamed: tf1_arrays[KERNEL]})
        with pytest.raises(dl.InputError) as error:
            _load(model, arrays)
        assert f"1 missing: {KERNEL} (is it {renamed}?)." in str(error.value)
        assert f"1 that the model doesn't have: {renamed}." in str(error.value)

    def test_an_extra_variable_is_named(self, model, tf1_arrays):
        with pytest.raises(dl.InputError, match="1 that the model doesn't have: aspp1/weights"):
            _load(model, _changed(tf1_arrays, aspp1__weights=np.zeros((1, 1, 160, 256))))

    def test_two_names_for_one_variable_are_not_taken_for_one(self, model, tf1_arrays):
        doubled = {"logits.semantic/biases": np.ones(21, np.float32), **tf1_arrays}
        with pytest.raises(dl.InputError, match="doesn't have: logits.semantic/biases"):
            _load(model, doubled)

    def test_a_transposed_variable_is_named_with_both_shapes(self, model, tf1_arrays):
        transposed = tf1_arrays[KERNEL].transpose(0, 1, 3, 2)
        with pytest.raises(dl.InputError) as error:
            _load(model, _changed(tf1_arrays, **{KERNEL: transposed}))
        assert f"{KERNEL} (1, 1, 72, 12) instead of (1, 1, 12, 72) (transposed?)" in str(
            error.value
        )

    def test_a_transposed_last_layer_is_not_another_number_of_classes(self, model, tf1_arrays):
        kernel = tf1_arrays["logits/semantic/weights"].transpose(0, 1, 3, 2)
        with pytest.raises(dl.InputError, match=r"logits/semantic/weights \(1, 1, 21, 256\)"):
            _load(model, _changed(tf1_arrays, logits__semantic__weights=kernel))

    def test_a_last_layer_that_disagrees_with_itself_is_not_made_anew(self, model, tf1_arrays):
        with pytest.raises(dl.InputError, match=r"logits/semantic/biases \(20,\) instead of"):
            _load(model, _changed(tf1_arrays, logits__semantic__biases=np.zeros(20)))

    def test_an_unknown_slot_is_no_slot(self, model, tf1_arrays):
        arrays = _changed(tf1_arrays, aspp0__weights__Velocity=np.zeros((1, 1, 160, 256)))
        with pytest.raises(dl.InputError, match="doesn't have: aspp0/weights/Velocity"):
            _load(model, arrays)

    def test_a_file_of_another_model_says_so_and_stays_short(self, model):
        arrays = {f"resnet_v1_50/unit_{i}/weights": np.zeros(3) for i in range(300)}
        with pytest.raises(dl.InputError) as error:
            _load(model, arrays)
        assert "272 missing" in str(error.value) and "300 that the model" in str(error.value)
        assert "another architecture" in str(error.value)
        assert len(str(error.value)) < 800

    def test_other_classes_are_an_error_if_a_new_layer_is_not_wanted(self, model, tf1_arrays):
        arrays = _changed(
            tf1_arrays,
            logits__semantic__weights=np.zeros((1, 1, 256, 4)),
            logits__semantic__biases=np.zeros(4),
        )
        with pytest.raises(dl.InputError, match="The file has 4 classes, the model 21"):
            _load(model, arrays, new_last_layer=False)


def test_other_classes_make_the_last_layer_anew_and_say_it_in_one_line(
    make_model, tf1_arrays, caplog
):
    ours = make_model(4)
    before = np.asarray(ours.get_layer("logits.semantic").kernel).copy()
    with caplog.at_level(logging.WARNING):
        loaded = _load(ours, tf1_arrays)
    assert loaded.new == ("logits.semantic/kernel", "logits.semantic/bias")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("some/file has 21 classes, deeplab_v3 4: the last layer is made anew")
    np.testing.assert_array_equal(before, np.asarray(ours.get_layer("logits.semantic").kernel))
    kept = [weight for weight in ours.weights if not weight.path.startswith("logits")]
    assert len(kept) == len(loaded.variables) == 270
    for weight in kept:
        np.testing.assert_array_equal(
            np.asarray(weight), tf1_arrays[source_name(weight.path, ours)]
        )


def test_a_new_last_layer_can_be_asked_for(make_model, tf1_arrays, caplog):
    ours = make_model()
    before = np.asarray(ours.get_layer("logits.semantic").kernel).copy()
    loaded = _load(ours, tf1_arrays, new_last_layer=True)
    assert len(loaded.new) == 2 and not caplog.records
    np.testing.assert_array_equal(before, np.asarray(ours.get_layer("logits.semantic").kernel))


@pytest.mark.parametrize(
    ("options", "new"),
    [
        ({"decoder_output_stride": (4,), "decoder_filters": 8}, {"logits.semantic"}),
        (
            {
                "backbone": "mobilenet_v3_small_seg",
                "decoder_output_stride": (8,),
                "decoder_output_is_logits": True,
                "decoder_use_sum_merge": True,
                "aspp_with_concat_projection": False,
            },
            {"decoder.feature_projection0", "decoder.decoder_conv0"},
        ),
    ],
)
def test_only_what_depends_on_the_classes_is_made_anew(options, new):
    def build(classes):
        filters = {"decoder_filters": classes} if "decoder_filters" not in options else {}
        return dl.DeepLabV3(
            classes, atrous_rates=(), aspp_convs_filters=8, **{**options, **filters}
        )

    first, second = build(3), build(5)
    arrays = {source_name(weight.path, first): np.asarray(weight) for weight in first.weights}
    loaded = _load(second, arrays)
    assert {path.split("/")[0] for path in loaded.new} == new


def test_the_name_map_has_every_variable_in_the_models_order(model, tf1_arrays):
    loaded = _load(model, tf1_arrays)
    assert [variable.path for variable in loaded.variables] == [w.path for w in model.weights]
    assert {variable.source for variable in loaded.variables} == set(tf1_arrays)
    for variable in loaded.variables:
        assert variable.shape == tf1_arrays[variable.source].shape
