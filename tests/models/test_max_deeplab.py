"""MaX-DeepLab: masks of any picture, and every promise that the other models keep."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import deeplab_tf as dl
from deeplab_tf.backbones.max_deeplab import SIZES
from deeplab_tf.layers.axial_attention import AxialAttention
from deeplab_tf.layers.drop_path import DropPath
from deeplab_tf.layers.dual_path_transformer import JointAttention, LearnedMemory
from deeplab_tf.models.macs import parameters

CLASSES, SLOTS = 4, 6
OFFICIAL = dict(SIZES)
# One block to a stage, and one branch to ASPP.
TINY = dict(
    num_mask_slots=SLOTS,
    atrous_rates=(),
    aspp_channels=16,
    decoder_channels=16,
    head_channels=8,
    pixel_head_channels=8,
    pixel_channels=16,
    backbone_layer_multiplier=0.34,
    backbone_width_multiplier=0.125,
    stem_width_multiplier=0.25,
)
OUTPUTS = {
    "semantic_logits": CLASSES,
    "pixel_space_normalized_feature": 16,
    "pixel_space_mask_logits": SLOTS,
    "transformer_class_logits": CLASSES + 1,
}
IMAGE = np.random.RandomState(0).uniform(0, 255, (1, 33, 49, 3)).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def narrow_transformers(zeros_first):
    """An eighth as wide as they are, like the rest of the tiny models."""
    narrow = dict(memory_channels=32, feature_channels=32)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in OFFICIAL.items():
            expansion = size.transformer_expansion / 8
            size = dataclasses.replace(size, transformer_expansion=expansion, **narrow)
            patch.setitem(SIZES, name, size)
        yield


@pytest.fixture(scope="module")
def build(random_weights):
    """(size, **options) -> a tiny model with random weights."""

    def build(size="s", **options):
        model = dl.MaXDeepLab(CLASSES, size, **{**TINY, **options})
        random_weights(model)
        return model

    return build


@pytest.fixture(scope="module")
def models(build):
    """One of each size, to look at."""
    return {size: build(size) for size in "sl"}


@pytest.fixture(scope="module")
def model(models):
    return models["s"]


def _answer(model, image=IMAGE) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in model(image, training=False).items()}


def _assert_alike(again, model):
    """Of one class and config, with the same variables and the same answer."""
    assert type(again) is type(model)
    assert again.get_config() == model.get_config()
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    wanted = _answer(model)
    for name, x in _answer(again).items():
        np.testing.assert_allclose(x, wanted[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ("s", (65, 49)),
        ("s", (64, 50)),
        ("s", (7, 5)),
        ("s", (1, 1)),
        ("l", (34, 47)),
        ("l", (1, 1)),
    ],
)
def test_masks_are_at_a_quarter_of_any_pictures_size(models, size, sides):
    image = np.random.RandomState(1).randint(0, 256, (2, *sides, 3)).astype("uint8")
    found = _answer(models[size], image)
    quarter = [-(-side // 4) for side in sides]
    assert {name: x.shape for name, x in found.items()} == {
        name: (2, *(quarter if name != "transformer_class_logits" else [SLOTS]), channels)
        for name, channels in OUTPUTS.items()
    }
    for name, x in found.items():
        assert x.dtype == np.float32 and np.all(np.isfinite(x)), name


def _planned(*arguments, **options) -> dl.MaXDeepLab:
    """One to look at: nothing is drawn or allocated."""
    with keras.StatelessScope(initialize_variables=False):
        return dl.MaXDeepLab(*arguments, **options)


@pytest.mark.parametrize(("size", "output_stride"), [("s", 8), ("s", 32), ("l", 8)])
def test_another_output_stride_leaves_the_masks_where_they_are(size, output_stride):
    model = _planned(CLASSES, size, output_stride=output_stride, **TINY)
    found = model.compute_output_spec(keras.KerasTensor((1, 33, 49, 3)))
    assert found["pixel_space_mask_logits"].shape == (1, 9, 13, SLOTS)


def test_a_graph_of_open_sides_gives_what_fixed_ones_give(build, model):
    graph = tf.function(
        lambda image: model(image, training=False), [tf.TensorSpec((None, None, None, 3))]
    )
    fixed = build(image_shape=(20, 31, 3))
    assert None not in fixed.output["pixel_space_mask_logits"].shape[1:]
    wanted = _answer(fixed, IMAGE[:, :20, :31])
    for name, x in graph(IMAGE[:, :20, :31]).items():
        np.testing.assert_allclose(np.asarray(x), wanted[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("size", "variables", "published"), [("s", 77_990_256, 61.9e6), ("l", 451_622_800, 451e6)]
)
def test_parameters_are_the_official_and_the_published_ones(
    size, variables, published, monkeypatch
):
    monkeypatch.setitem(SIZES, size, OFFICIAL[size])
    model = _planned(134, size, ignore_label=0)
    assert model.count_params() == variables
    # The paper's Table 1 leaves out what is there for a loss alone.
    semantic = [w for w in model.trainable_weights if w.path.startswith("semantic_")]
    found = parameters(model) - sum(int(np.prod(w.shape)) for w in semantic)
    assert found == pytest.approx(published, rel=1e-3)


def _blocks(model, kind, pattern) -> list[str]:
    """Blocks that have such a layer."""
    names = (layer.name for layer in model.layers if isinstance(layer, kind))
    matches = (re.fullmatch(rf"encoder\.(.*){pattern}", name) for name in names)
    return [match[1] for match in matches if match]


def test_transformers_follow_the_blocks_of_late_stages(models):
    pattern = r"_transformer\.memory_attention"
    found = {size: _blocks(x, JointAttention, pattern) for size, x in models.items()}
    assert found["s"] == ["stage5.block1", "stage5_extra.block1"]
    assert found["l"] == [
        *("stage4.block1", "stage5.block1", "decoder_stage4.block1"),
        *(f"decoder_stage4_extra.block{n}" for n in (1, 2, 3)),
        *(f"decoder_stage8_extra.block{n}" for n in (1, 2, 3)),
    ]
    depths = [x.value_depth for x in models["l"].layers if isinstance(x, JointAttention)]
    # Of stage 4 half as wide as of the others.
    assert depths[0] == 32 and set(depths[2:]) == {64}
    memory = models["l"].get_layer("encoder.memory_feature")
    assert isinstance(memory, LearnedMemory) and memory.num_slots == SLOTS


def test_the_stacked_decoder_goes_down_and_up(models):
    heights = {
        number: models["l"].get_layer(f"encoder.decoder_stage{number}{extra}_resized_fuse.add")
        for number, extra in ((n, "_extra" if n > 4 else "") for n in range(1, 11))
    }
    shapes = keras.Model(models["l"].input, {n: x.output for n, x in heights.items()})
    found = shapes.compute_output_spec(keras.KerasTensor((1, 65, 65, 3)))
    strides = [64 // (x.shape[1] - 1) for x in found.values()]
    assert strides == [8, 4, 8, 16, 8, 4, 8, 16, 8, 4]
    # Up in strides by a stride of the projection, down by resizing.
    names = {w.path.split("/")[0] for w in models["l"].weights}
    assert "encoder.decoder_stage3_resized_fuse.strided_conv_bn1" in names
    assert "encoder.decoder_stage9_extra_resized_fuse.resized_conv_bn1" in names
    assert models["l"].endpoints["feature_semantic"].startswith("encoder.decoder_stage6")
    assert models["l"].endpoints["feature_panoptic"].startswith("encoder.decoder_stage10")


def test_endpoints_are_named(models):
    both = {f"{kind}{n}" for n in range(1, 5) for kind in ("stage", "res")} | {"stage5"}
    both |= {"preprocessed", "backbone", "feature_panoptic", "feature_semantic", "logits"}
    both |= {"transformer_class_feature", "transformer_mask_feature"}
    # No head of L is on the encoder's last map.
    assert set(models["s"].endpoints) == both | {"res5"}
    assert set(models["l"].endpoints) == both
    found = models["s"].endpoint_model("stage2", "res2", "backbone")(IMAGE)
    np.testing.assert_array_equal(np.maximum(found["stage2"], 0), found["res2"])
    assert found["backbone"].shape == (1, 3, 4, 256)


def test_slots_and_the_semantic_head_share_no_feature_of_the_decoder(model):
    """What semantic logits need can be had without slots, and masks without the ASPP."""
    semantic = keras.Model(model.input, model.output["semantic_logits"])
    names = {layer.name for layer in semantic.layers}
    assert not [name for name in names if "_extra" in name or name.startswith("pixel_space")]
    masks = keras.Model(model.input, model.output["pixel_space_mask_logits"])
    assert not [layer.name for layer in masks.layers if layer.name.startswith("semantic_")]


def test_a_slot_has_a_channel_for_each_class_and_void():
    def channels(num_classes, ignore_label):
        model = _planned(num_classes, ignore_label=ignore_label, **TINY)
        return [model.output[key].shape[-1] for key in ("semantic_logits", [*OUTPUTS][3])]

    assert channels(4, 255) == [4, 5]
    # Void has a number among the classes, as in COCO.
    assert channels(4, 0) == [4, 4]


def test_a_preset_comes_back(model, tmp_path):
    info = dl.ModelInfo(classes=("road", "sky", "person", "car"), thing_classes=(2, 3))
    model.save_to_preset(tmp_path / "preset", info)
    again = dl.from_preset(tmp_path / "preset")
    assert again.info == info
    _assert_alike(again, model)


def test_another_number_of_classes_makes_only_the_last_layers_anew(model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    other = dl.from_preset(tmp_path / "preset", num_classes=6)
    values = {w.path: np.asarray(w) for w in model.weights}
    changed = [w.path for w in other.weights if w.shape != values[w.path].shape]
    assert sorted(changed) == [
        f"{layer}/{variable}"
        for layer in ("semantic_last_layer", "transformer_class_head")
        for variable in ("bias", "kernel")
    ]
    for weight in other.weights:
        if weight.path not in changed:
            np.testing.assert_array_equal(np.asarray(weight), values[weight.path])


def test_a_keras_file_comes_back(build, tmp_path):
    options = dict(low_level=(("res2", 8),), dropout_rate=0.3, num_mask_slots=5, ignore_label=0)
    options |= dict(batch_norm_epsilon=1e-5, image_pooling_crop_size=(65, 97), name="mine")
    options |= dict(drop_path_keep_prob=0.9, drop_path_schedule="constant")
    model = build(use_squeeze_and_excite=True, **options)
    assert model.get_config()["low_level"] == [["res2", 8]]
    model.save(tmp_path / "model.keras")
    _assert_alike(keras.saving.load_model(tmp_path / "model.keras"), model)


def test_a_clone_gives_the_same_answer(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    wanted = _answer(model)
    for name, x in clone(IMAGE, training=False).items():
        np.testing.assert_allclose(np.asarray(x), wanted[name], atol=1e-5)


def test_half_precision_is_inside_and_all_outputs_are_float32(build):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    names = [layer.name for layer in model.layers]
    wide = {x.name for x in model.layers if x.output.dtype == "float32"} - {"image"}
    assert wide == set(OUTPUTS)
    found = keras.Model(model.input, [layer.output for layer in model.layers])(IMAGE)
    for name, x in zip(names, found, strict=True):
        assert np.all(np.isfinite(np.asarray(keras.ops.cast(x, "float32")))), name


def test_blocks_and_transformers_may_be_left_out_in_training():
    model = _planned(CLASSES, drop_path_keep_prob=0.6, **TINY)
    dropped = {x.name: x.keep_prob for x in model.layers if isinstance(x, DropPath)}
    # Linear from 1 at the stem: by the stride of a block's input, which counts as if dense.
    for name, level in (("stage5.block1", 3), ("stage5_extra.block1", 4)):
        for branch in (f"{name}.drop_path", f"{name}_transformer.pixel_conv3_bn.drop_path"):
            assert dropped[f"encoder.{branch}"] == pytest.approx(1 - 0.4 * level / 4)
    assert not [name for name in dropped if "stage2." in name or "decoder_stage" in name]


class _AllToOne:
    """As the real loss, it is asked once; it wants every output to be 1 where the target is."""

    takes_all_outputs = True

    def __call__(self, targets, outputs):
        wanted = keras.ops.cast(targets["wanted"], "float32")[:, 0, 0]
        return sum(
            keras.ops.mean(keras.ops.square(keras.ops.mean(x, axis=-1) - wanted), axis=None)
            for x in outputs.values()
        )


def test_every_variable_has_a_gradient(model):
    model.set_batch_norm(freeze_statistics=True)
    with tf.GradientTape() as tape:
        found = model(IMAGE, training=True)
        # Not the plain sum: lengths of 1 would leave nothing to learn.
        loss = sum(tf.reduce_mean(x * np.arange(x.shape[-1])) for x in found.values())
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    model.set_batch_norm(freeze_statistics=False)
    still = [
        weight.path
        for weight, gradient in zip(model.trainable_weights, gradients, strict=True)
        if not float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient))))
    ]
    # What is added to all logits of a softmax alike has none, but for rounding.
    assert [path for path in still if not path.endswith("batch_norm_similarity/beta")] == []


def test_a_step_of_fit_lowers_the_loss(build):
    model = build()
    # Each variable that learns takes its time; the other test sees to them.
    for layer in model.layers:
        layer.trainable = not layer.name.startswith(("encoder.stage", "encoder.stem"))
    model.compile(keras.optimizers.Adam(0.01), _AllToOne(), run_eagerly=True)
    targets = {"wanted": np.ones((1, 17, 17), "int32")}
    losses = model.fit(IMAGE[:, :17, :17], targets, epochs=2, verbose=0).history["loss"]
    assert losses[1] < 0.98 * losses[0]


def test_axial_attention_is_where_the_paper_has_it(model):
    blocks = _blocks(model, AxialAttention, r"\.attention\.height_axis")
    assert blocks == ["stage4.block2", "stage5.block1", "stage5_extra.block1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "m"}, "size is s or l; got 'm'"),
        ({"output_stride": 4}, "output_stride is one of"),
        ({"num_mask_slots": 0}, "num_mask_slots is at least 1; got 0"),
        ({"low_level": [["res6", 8]]}, "low_level is among .*; got res6"),
        ({"drop_path_schedule": "steep"}, "linear or constant; got 'steep'"),
        ({"drop_path_keep_prob": 0.0}, "drop_path_keep_prob is above 0"),
        ({"backbone_layer_multiplier": 0.1}, "leaves a stage without blocks"),
        ({"sise": "s"}, "Did you mean 'size'"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(options, words):
    with pytest.raises(dl.InputError, match=words):
        dl.MaXDeepLab(CLASSES, **{**TINY, **options})
