import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.models.deeplab_v3 import ATROUS_RATES


def _rates(model):
    layers = [layer for layer in model.layers if layer.name.endswith("_depthwise")]
    return tuple(layer.dilation_rate[0] for layer in layers if layer.name.startswith("aspp"))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_rates_follow_the_output_stride(output_stride):
    model = dl.DeepLabV3(2, depth_multiplier=0.25, output_stride=output_stride)
    assert _rates(model) == ATROUS_RATES[output_stride]


def test_no_rates_is_not_the_same_as_rates_left_out():
    assert _rates(dl.DeepLabV3(2, depth_multiplier=0.25, atrous_rates=())) == ()


def test_v3_plus_has_a_decoder_and_v3_has_none():
    assert "decoder" in dl.DeepLabV3Plus(2, depth_multiplier=0.25).endpoints
    assert "decoder" not in dl.DeepLabV3(2, depth_multiplier=0.25).endpoints


def test_several_decoder_stages_end_at_the_finest():
    model = dl.DeepLabV3Plus(
        2, depth_multiplier=0.25, output_stride=32, decoder_output_stride=(4, 16, 8)
    )
    logits = model.endpoint_model("logits")(np.zeros((1, 65, 65, 3), "float32"))["logits"]
    assert logits.shape == (1, 17, 17, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "mobilenet_v22"}, "Did you mean 'mobilenet_v2'"),
        ({"output_stride": 7}, r"is one of \[8, 16, 32\]; got 7"),
        ({"decoder_output_stride": (2,)}, "got 2"),
        ({"multi_grid": (1, 2, 4)}, "doesn't have this option"),
        ({"decoder_use_sum_merge": True, "decoder_num_convs": 1}, "behind a concatenation"),
        ({"decoder_use_sum_merge": True, "decoder_kernel_size": 5}, "behind a concatenation"),
        (
            {
                "decoder_output_stride": (4,),
                "decoder_output_is_logits": True,
                "decoder_use_sum_merge": True,
            },
            "decoder_filters = num_classes",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(options, words):
    with pytest.raises(dl.InputError, match=words):
        dl.DeepLabV3(2, **{"depth_multiplier": 0.25, **options})


def test_an_unknown_endpoint_lists_those_there_are():
    model = dl.DeepLabV3(2, depth_multiplier=0.25)
    with pytest.raises(ValueError, match="backbone"):
        model.endpoint_model("neck")


def test_pixels_are_normalised_inside():
    model = dl.DeepLabV3(2, depth_multiplier=0.25)
    image = np.array([0, 255], np.uint8).repeat(3).reshape(1, 1, 2, 3)
    values = np.asarray(model.endpoint_model("preprocessed")(image)["preprocessed"])
    np.testing.assert_allclose(values.ravel(), [-1] * 3 + [1] * 3, atol=1e-6)


def test_logits_can_stay_at_their_own_stride():
    model = dl.DeepLabV3(2, depth_multiplier=0.25, upsample_logits=False)
    assert model(np.zeros((1, 33, 33, 3), "float32")).shape == (1, 3, 3, 2)
