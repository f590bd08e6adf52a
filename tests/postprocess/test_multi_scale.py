import numpy as np
import pytest

import deeplab_tf as dl
from deeplab_tf.postprocess import multi_scale


@pytest.fixture(scope="module")
def model():
    return dl.DeepLabV3(3, depth_multiplier=0.25, atrous_rates=(), aspp_convs_filters=8)


@pytest.fixture(scope="module")
def image():
    return np.random.RandomState(0).randint(0, 256, (1, 65, 49, 3), np.uint8)


def test_one_scale_is_the_softmax_of_the_model(model, image):
    logits = np.asarray(model(image))
    wanted = np.exp(logits - logits.max(-1, keepdims=True))
    wanted /= wanted.sum(-1, keepdims=True)
    ours = np.asarray(multi_scale.predict_probabilities(model, image))
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_flipping_makes_a_mirrored_picture_give_a_mirrored_answer(model, image):
    options = dict(eval_scales=(0.5, 1.0), add_flipped_images=True)
    ours = np.asarray(multi_scale.predict_probabilities(model, image, **options))
    mirrored = multi_scale.predict_probabilities(model, image[:, :, ::-1], **options)
    np.testing.assert_allclose(np.asarray(mirrored)[:, :, ::-1], ours, atol=1e-5)
    np.testing.assert_allclose(ours.sum(-1), 1.0, atol=1e-5)


def test_labels_without_upsampled_logits_are_those_of_the_small_map(model, image):
    labels, probabilities = multi_scale.predict_without_upsampled_logits(model, image)
    small = np.asarray(model.endpoint_model("logits")(image)["logits"]).argmax(-1)
    assert set(np.unique(np.asarray(labels))) <= set(np.unique(small))
    assert np.asarray(labels)[0, 0, 0] == small[0, 0, 0]
    np.testing.assert_allclose(np.asarray(probabilities).sum(-1), 1.0, atol=1e-5)


MAPS = ("semantic_logits", "center_heatmap", "offset_map")


@pytest.fixture(scope="module")
def panoptic():
    """Tiny, and with weights that let a picture through."""
    heads = ("aspp", "decoder", "head", "instance_aspp", "instance_decoder", "instance_head")
    narrow = dict(backbone_layer_multiplier=0.34, backbone_width_multiplier=0.125)
    model = dl.PanopticDeepLab(
        3, atrous_rates=(), **narrow, **{f"{head}_channels": 8 for head in heads}
    )
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            fan_in = np.prod(weight.shape[:2] if "depthwise" in weight.path else weight.shape[:3])
            weight.assign(random.normal(0, (2 / fan_in) ** 0.5, weight.shape))
    return model


def _fused(model, image, scales=(1.0,), flip=False):
    fused = multi_scale.fused_model(model, eval_scales=scales, add_flipped_images=flip)
    found = fused(image.astype("float32"), training=False)
    return {name: np.asarray(x) for name, x in found.items()}


def _softmax(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _alone(model, image):
    """The maps of the model itself, as probabilities."""
    found = {name: np.asarray(x) for name, x in model(image, training=False).items()}
    return {**found, "semantic_logits": _softmax(found["semantic_logits"])}


def test_one_scale_of_a_panoptic_model_is_the_model(panoptic, image):
    found, wanted = _fused(panoptic, image), _alone(panoptic, image)
    assert [*found] == [*MAPS]
    for name in MAPS:
        assert np.std(wanted[name]) > 1e-3
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4, err_msg=name)


def test_a_mirrored_picture_gives_mirrored_maps_and_offsets_to_the_other_side(panoptic, image):
    one = _fused(panoptic, image, flip=True)
    other = _fused(panoptic, np.ascontiguousarray(image[:, :, ::-1]), flip=True)
    for name in MAPS:
        back = other[name][:, :, ::-1] * (np.float32([1, -1]) if name == "offset_map" else 1)
        np.testing.assert_allclose(back, one[name], atol=1e-4, err_msg=name)
    # Up and down stay, so that a mean of both signs would show.
    plain = _alone(panoptic, image)["offset_map"]
    turned = _alone(panoptic, image[:, :, ::-1])["offset_map"][:, :, ::-1]
    np.testing.assert_allclose(one["offset_map"][..., 0], (plain + turned)[..., 0] / 2, atol=1e-4)
    np.testing.assert_allclose(one["offset_map"][..., 1], (plain - turned)[..., 1] / 2, atol=1e-4)


def test_scales_of_a_panoptic_model_are_averaged_in_pixels_of_the_picture(panoptic, image):
    scales = (0.5, 1.0, 1.5)
    singles = [_fused(panoptic, image, (scale,)) for scale in scales]
    found = _fused(panoptic, image, scales)
    for name in MAPS:
        assert found[name].shape[1:3] == image.shape[1:3]
        mean = np.mean([single[name] for single in singles], axis=0)
        np.testing.assert_allclose(found[name], mean, atol=1e-4, err_msg=name)
        assert np.abs(singles[0][name] - singles[1][name]).max() > 1e-3
    np.testing.assert_allclose(found["semantic_logits"].sum(-1), 1.0, atol=1e-5)
    # An offset of the half-sized picture is twice as many pixels here.
    half = image[:, ::2, ::2].astype("float32")
    small = panoptic.endpoint_model("offset_map_raw")(half)["offset_map_raw"]
    corner = np.asarray(small)[0, 0, 0] * [
        (n - 1) / (k - 1) for n, k in zip(image.shape[1:3], small.shape[1:3], strict=True)
    ]
    # Where corners are aligned, half the size is every second pixel.
    np.testing.assert_allclose(singles[0]["offset_map"][0, 0, 0], corner, rtol=1e-3, atol=1e-3)
