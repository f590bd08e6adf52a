"""Panoptic-DeepLab: three maps of any picture, and every promise that the other models keep."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deeplab_tf as dl
from deeplab_tf.datasets.targets import panoptic_targets
from deeplab_tf.layers.axial_attention import AxialAttention
from deeplab_tf.losses.panoptic import CenterLoss, OffsetLoss, SemanticLoss

MAPS = {"semantic_logits": 4, "center_heatmap": 1, "offset_map": 2}
# One block to a stage, and one branch to ASPP.
SMALL = dict(
    atrous_rates=(),
    aspp_channels=16,
    decoder_channels=16,
    head_channels=8,
    instance_aspp_channels=16,
    instance_decoder_channels=8,
    instance_head_channels=8,
)
NARROW = dict(
    backbone_layer_multiplier=0.5, backbone_width_multiplier=0.125, stem_width_multiplier=0.25
)
TINY = {**SMALL, **NARROW}
# One of each kind.
BACKBONES = (
    *("mobilenet_v2", "mobilenet_v3_small_deeplab2", "mobilenet_v3_large_deeplab2"),
    *("resnet_v1_18_beta", "xception_41", "vgg_16", "resnet50_beta"),
    *("wide_resnet41", "axial_resnet_s", "axial_swidernet", "max_deeplab_s_backbone"),
)
IMAGE = np.random.RandomState(0).uniform(0, 255, (1, 33, 49, 3)).astype("float32")


@pytest.fixture(scope="module")
def build(random_weights):
    """**options -> a tiny model with random weights."""

    def build(*, cls=dl.PanopticDeepLab, **options):
        backbone = options.pop("backbone", "resnet50")
        model = cls(4, backbone, **{**TINY, **options})
        random_weights(model)
        return model

    return build


@pytest.fixture(scope="module")
def model(build):
    """One to look at."""
    return build()


def _answer(model, image=IMAGE) -> dict[str, np.ndarray]:
    found = model(image, training=False)
    found = found if isinstance(found, dict) else {"semantic_logits": found}
    return {name: np.asarray(x) for name, x in found.items()}


def _assert_alike(again, model):
    """Of one class and config, with the same variables and the same answer."""
    assert type(again) is type(model)
    assert again.get_config() == model.get_config()
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    one, other = _answer(again), _answer(model)
    assert [*one] == [*other]
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("size", [(65, 49), (64, 50), (33, 32), (7, 5), (1, 1)])
def test_there_are_three_maps_of_a_pictures_size(model, size):
    image = np.random.RandomState(1).randint(0, 256, (2, *size, 3)).astype("uint8")
    found = _answer(model, image)
    assert {name: x.shape for name, x in found.items()} == {
        name: (2, *size, channels) for name, channels in MAPS.items()
    }
    for name, x in found.items():
        assert x.dtype == np.float32 and np.all(np.isfinite(x)), name
    assert [*model.output] == [*MAPS]


def test_a_graph_of_open_sides_gives_what_a_call_gives(model):
    graph = tf.function(
        lambda image: model(image, training=False), [tf.TensorSpec((None, None, None, 3))]
    )
    for size in ((33, 49), (20, 31)):
        image = np.random.RandomState(1).uniform(0, 255, (1, *size, 3)).astype("float32")
        wanted = _answer(model, image)
        for name, x in graph(image).items():
            np.testing.assert_allclose(np.asarray(x), wanted[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("size", [(33, 49), (34, 51), (65, 33)])
def test_offsets_grow_with_the_picture_and_other_maps_do_not(model, size):
    """Corners lie on corners, so a resized map has there what it had."""
    image = np.random.RandomState(1).uniform(0, 255, (1, *size, 3)).astype("float32")
    raw = model.endpoint_model("logits", "center_heatmap_raw", "offset_map_raw")(image)
    raw = {name: np.asarray(x) for name, x in raw.items()}
    small, whole = raw["offset_map_raw"], _answer(model, image)
    factor = [(n - 1) / (k - 1) for n, k in zip(size, small.shape[1:3], strict=True)]
    assert min(factor) > 3
    corners = np.ix_([0], [0, -1], [0, -1])
    np.testing.assert_allclose(
        whole["offset_map"][corners], small[corners] * factor, rtol=1e-4, atol=1e-4
    )
    for name, endpoint in (("semantic_logits", "logits"), ("center_heatmap", "center_heatmap_raw")):
        np.testing.assert_allclose(whole[name][corners], raw[endpoint][corners], atol=1e-4)


def test_maps_at_the_decoders_stride_are_the_raw_ones(build, model):
    small = build(upsample_logits=False)
    found = _answer(small)
    raw = model.endpoint_model("logits", "center_heatmap_raw", "offset_map_raw")(IMAGE)
    for x, wanted in zip(found.values(), raw.values(), strict=True):
        assert x.shape[1:3] == (9, 13)
        np.testing.assert_allclose(x, np.asarray(wanted), atol=1e-5)


@pytest.mark.parametrize(
    ("tasks", "maps"),
    [("semantic", ["semantic_logits"]), ("instance", ["center_heatmap", "offset_map"])],
)
def test_half_a_model_is_half_of_the_whole(build, model, tasks, maps):
    half = build(tasks=tasks)
    values = {w.path: w for w in model.weights}
    assert set(values) > {w.path for w in half.weights}
    for weight in half.weights:
        weight.assign(values[weight.path])
    # One task, one tensor.
    assert isinstance(half.output, dict) == (tasks == "instance")
    found, wanted = _answer(half), _answer(model)
    assert [*found] == maps
    for name in maps:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


def test_endpoints_are_named(model):
    found = model.endpoint_model(*model.endpoints)(IMAGE)
    assert [*found] == [
        *("preprocessed", "stage1", "res1", "stage2", "res2", "stage3", "res3", "stage4", "res4"),
        *("stage5", "res5", "backbone", "semantic_decoder", "logits"),
        *("instance_decoder", "center_heatmap_raw", "offset_map_raw"),
    ]
    np.testing.assert_array_equal(np.asarray(found["backbone"]), np.asarray(found["res5"]))
    assert found["preprocessed"].shape == IMAGE.shape
    assert float(np.abs(found["preprocessed"]).max()) <= 1.0


def test_a_preset_comes_back_with_its_things(model, tmp_path):
    info = dl.ModelInfo(
        classes=("road", "sky", "person", "car"),
        colors=((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)),
        thing_classes=(2, 3),
        label_divisor=256,
        merge={"nms_kernel": 7},
    )
    model.save_to_preset(tmp_path / "preset", info)
    again = dl.from_preset(tmp_path / "preset")
    assert again.info == info
    _assert_alike(again, model)


def test_another_number_of_classes_makes_only_the_last_semantic_layer_anew(model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    other = dl.from_preset(tmp_path / "preset", num_classes=6)
    assert {name: x.shape[-1] for name, x in other.output.items()} == {**MAPS, "semantic_logits": 6}
    values = {w.path: np.asarray(w) for w in model.weights}
    changed = [w.path for w in other.weights if w.shape != values[w.path].shape]
    assert changed == ["semantic_last_layer/kernel", "semantic_last_layer/bias"]
    for weight in other.weights:
        if weight.path not in changed:
            np.testing.assert_array_equal(np.asarray(weight), values[weight.path])


def test_a_keras_file_comes_back(build, tmp_path):
    options = dict(low_level=(("res2", 8),), instance_low_level=[["res3", 4]], dropout_rate=0.3)
    options |= dict(batch_norm_epsilon=1e-5, image_pooling_crop_size=(65, 97), name="mine")
    model = build(backbone="axial_resnet_s", use_squeeze_and_excite=True, **options)
    assert model.get_config()["low_level"] == [["res2", 8]]
    model.save(tmp_path / "model.keras")
    _assert_alike(keras.saving.load_model(tmp_path / "model.keras"), model)


def test_a_clone_gives_the_same_answer(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    wanted = _answer(model)
    for name, x in _answer(clone).items():
        np.testing.assert_allclose(x, wanted[name], atol=1e-5)


def test_half_precision_is_inside_and_all_maps_are_float32(build):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build(backbone="axial_deeplab_s")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    maps = keras.Model(model.input, {layer.name: layer.output for layer in model.layers})
    maps = {name: np.asarray(x) for name, x in maps(IMAGE, training=False).items()}
    wide = {name for name, x in maps.items() if x.dtype == np.float32}
    assert wide == {"image", *MAPS}
    assert [name for name, x in maps.items() if not np.all(np.isfinite(x))] == []


def test_standard_convolutions_take_the_place_of_separable_ones(build):
    for options in (
        {"decoder_conv_type": "standard_conv"},
        {"head_conv_type": "standard_conv"},
        {"decoder_conv_type": "standard_conv", "head_conv_type": "standard_conv"},
    ):
        model = build(**options)
        separable = [x.name for x in model.layers if isinstance(x, keras.layers.DepthwiseConv2D)]
        parts = {"decoder" if "_decoder." in name else "head" for name in separable}
        assert parts == {"decoder", "head"} - {key.partition("_")[0] for key in options}
        assert set(_answer(model)) == set(MAPS)


def test_the_halves_may_have_rates_of_their_own_and_another_stride_takes_them_along(
    build, tmp_path
):
    def rates(model, half):
        return [model.get_layer(f"{half}_decoder.aspp{n}").dilation_rate[0] for n in (1, 2)]

    model = build(atrous_rates=(3, 6), instance_atrous_rates=(1, 2), output_stride=32)
    assert (rates(model, "semantic"), rates(model, "instance")) == ([3, 6], [1, 2])
    model.save_to_preset(tmp_path / "preset")
    finer = dl.from_preset(tmp_path / "preset", output_stride=16)
    assert (rates(finer, "semantic"), rates(finer, "instance")) == ([6, 12], [2, 4])


def _discs(count=4, side=33):
    """Pictures of two discs each, with what the heads shall learn of them."""
    y, x = np.indices((side, side))
    images = np.random.RandomState(0).uniform(0, 60, (count, side, side, 3)).astype("float32")
    found = []
    for index, image in enumerate(images):
        label = np.zeros((side, side), np.int32)
        for number, left in ((1, 8), (2, 24)):
            disc = (y - 8 - 5 * index) ** 2 + (x - left) ** 2 < 40
            label[disc] = 100 + number
            image[disc, 0] += 150
        options = dict(label_divisor=100, thing_classes=(1,), ignore_label=255, sigma=3.0)
        found.append(panoptic_targets(label, **options))
    targets, weights = (
        {name: np.stack([np.asarray(part[name]) for part in parts]) for name in MAPS}
        for parts in zip(*found, strict=True)
    )
    return images, targets, weights


def test_every_variable_has_a_gradient(build):
    model = build(backbone="axial_resnet_s", tasks="panoptic")
    model.set_batch_norm(freeze_statistics=True)
    images, targets, weights = _discs(1)
    losses = dict(zip(MAPS, (SemanticLoss(4, 255), CenterLoss(), OffsetLoss()), strict=True))
    with tf.GradientTape() as tape:
        found = model(images, training=True)
        loss = sum(losses[name](targets[name], found[name], weights[name]) for name in MAPS)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    still = [
        weight.path
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True)
        if not float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient))))
    ]
    # What is added to all logits of a softmax alike has none, but for rounding.
    assert [path for path in still if not path.endswith("batch_norm_similarity/beta")] == []


def test_fit_takes_dictionaries_and_every_head_learns():
    keras.utils.set_random_seed(1)
    few = dict(low_level=[("res2", 8)], instance_low_level=[("res2", 8)])
    model = dl.PanopticDeepLab(2, "resnet50", **TINY, **few, aspp_use_only_1x1_proj_conv=True)
    # Each variable that learns takes its time to trace; the backbone's are seen to above.
    for layer in model.layers:
        layer.trainable = not layer.name.startswith("encoder.")
    losses = (SemanticLoss(2, 255, 0.5), CenterLoss(), OffsetLoss())
    # XLA would take longer to compile the step than the steps take.
    losses = dict(zip(MAPS, losses, strict=True))
    model.compile(keras.optimizers.Adam(0.02), losses, jit_compile=False)
    images, targets, weights = _discs()
    options = dict(sample_weight=weights, batch_size=4, epochs=25, verbose=0)
    history = model.fit(images, targets, **options).history
    for name in ("loss", *(f"{name}_loss" for name in MAPS)):
        assert np.all(np.isfinite(history[name]))
        assert history[name][-1] < 0.7 * history[name][0], (name, history[name])
    start = sum(history[f"{name}_loss"][0] for name in MAPS)
    assert history["loss"][0] == pytest.approx(start, rel=1e-4)


def test_axial_deeplab_has_the_settings_of_its_paper(narrow_backbones):
    model = dl.AxialDeepLab(4)
    config = model.get_config()
    assert (config["backbone"], config["output_stride"]) == ("axial_deeplab_l", 16)
    assert config["aspp_use_only_1x1_proj_conv"] and model.name == "axial_deeplab"
    names = [layer.name for layer in model.layers]
    assert "semantic_decoder.concat_projection" in names
    assert not [name for name in names if "aspp" in name or "pooling" in name]
    assert sum(isinstance(layer, AxialAttention) for layer in model.layers) == 2 * 8
    again = dl.AxialDeepLab.from_config(config)
    again.set_weights(model.get_weights())
    _assert_alike(again, model)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_kind_of_backbone_works(backbone, narrow_backbones, random_weights):
    options = {"depth_multiplier": 0.25} if backbone.startswith("mobilenet") else {}
    model = dl.PanopticDeepLab(4, backbone, **SMALL, **options)
    random_weights(model)
    found = _answer(model)
    assert {name: x.shape for name, x in found.items()} == {
        name: (1, 33, 49, channels) for name, channels in MAPS.items()
    }
    assert all(np.all(np.isfinite(x)) and x.std() > 0 for x in found.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": "things"}, "tasks is one of panoptic, semantic, instance; got 'things'"),
        (
            {"decoder_conv_type": "separable"},
            "decoder_conv_type is depthwise_separable_conv or standard_conv; got 'separable'",
        ),
        ({"backbone": "resnet_50"}, "unknown backbone 'resnet_50'. Did you mean"),
        ({"output_stride": 4}, r"output_stride of resnet50 is one of \[8, 16, 32\]; got 4"),
        ({"low_level": (("res6", 8),)}, r"low_level of resnet50 is among \['stage1'.*; got res6"),
        ({"depth_multiplier": 0.5}, "depth_multiplier=0.5: resnet50 doesn't have this option; it"),
        ({"drop_path_keep_prob": 0.0}, "drop_path_keep_prob is above 0 and at most 1; got 0.0"),
        (
            {"drop_path_schedule": "cosine"},
            "drop_path_schedule is linear or constant; got 'cosine'",
        ),
        ({"backbone": "mobilenet_v2", "use_squeeze_and_excite": True}, "use_squeeze_and_excite"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named_with_what_is_allowed(options, words):
    narrow = NARROW if "backbone" not in options else {}
    arguments = {"backbone": "resnet50", **SMALL, **narrow, **options}
    with pytest.raises(dl.InputError, match=words):
        dl.PanopticDeepLab(4, **arguments)
