"""kMaX-DeepLab: masks of any picture, what they are learnt from, and what the model is made of."""

import dataclasses
import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.backbones.convnext import Variant, convnext
from deeplab_tf.layers.axial_attention import AxialAttention
from deeplab_tf.layers.drop_path import DropPath
from deeplab_tf.layers.kmeans_attention import ClusterSums

CLASSES, SLOTS, PIXEL = 4, 5, 6
# Narrow, with one block to a stage of the backbone and one branch to ASPP.
TINY = dict(
    num_mask_slots=SLOTS,
    atrous_rates=(),
    low_level=(("res3", 4), ("res2", 4)),
    aspp_channels=8,
    decoder_channels=8,
    head_channels=8,
    pixel_head_channels=8,
    pixel_channels=PIXEL,
    pixel_decoder_width_multiplier=0.125,
    transformer_filters=8,
    feed_forward_channels=8,
)
NARROW = dict(
    backbone_layer_multiplier=0.34, backbone_width_multiplier=0.125, stem_width_multiplier=0.125
)
IMAGE = np.random.RandomState(0).uniform(0, 255, (1, 65, 49, 3)).astype("float32")
HEADS = {keys.PIXEL_FEATURE: PIXEL, keys.MASK_LOGITS: SLOTS, keys.MASK_CLASS_LOGITS: CLASSES + 1}
STRIDES = (32, 32, 16, 16, 8, 8)


@pytest.fixture(scope="module")
def build(zeros_first, random_weights):
    """**options -> a tiny model with random weights."""

    def build(backbone="resnet50", **options):
        narrow = {} if backbone.startswith("convnext") else NARROW
        model = dl.KMaXDeepLab(CLASSES, backbone, **{**TINY, **narrow, **options})
        random_weights(model)
        return model

    return build


@pytest.fixture(scope="module")
def model(build):
    """One to look at."""
    return build()


@pytest.fixture(scope="module")
def other(build):
    """One of all that differs: Cityscapes' settings on an axial backbone."""
    options = dict(
        high_resolution_output_stride=2,
        auxiliary_semantic_decoder=False,
        transformer_drop_path_keep_prob=0.8,
        batch_norm_epsilon=1e-5,
    )
    return build("axial_resnet50", **options)


def _answer(model, image=IMAGE, training=False) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in model(image, training=training).items()}


def _layers(model, kind, pattern="") -> list:
    return [x for x in model.layers if isinstance(x, kind) and re.search(pattern, x.name)]


# --- Answers ---


@pytest.mark.parametrize("size", [(65, 49), (64, 50), (33, 32), (1, 3)])
def test_there_is_a_mask_and_a_class_for_each_slot(model, size):
    image = np.random.RandomState(1).uniform(0, 255, (2, *size, 3)).astype("float32")
    found = _answer(model, image)
    quarter = tuple(-(-side // 4) for side in size)
    assert {name: x.shape for name, x in found.items()} == {
        keys.SEMANTIC_LOGITS: (2, *quarter, CLASSES),
        keys.PIXEL_FEATURE: (2, *quarter, PIXEL),
        keys.MASK_LOGITS: (2, *quarter, SLOTS),
        keys.MASK_CLASS_LOGITS: (2, SLOTS, CLASSES + 1),
    }
    for name, x in found.items():
        assert x.dtype == np.float32 and np.all(np.isfinite(x)), name
    lengths = np.linalg.norm(found[keys.PIXEL_FEATURE], axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


def test_training_adds_the_answers_of_six_steps_at_their_strides(model):
    found = _answer(model, training=True)
    for number, stride in enumerate(STRIDES):
        side = tuple(-(-n // stride) for n in IMAGE.shape[1:3])
        for key, channels in HEADS.items():
            x = found[keys.AUXILIARY.format(number, key)]
            rows = (SLOTS,) if key == keys.MASK_CLASS_LOGITS else side
            assert x.shape == (1, *rows, channels) and x.dtype == np.float32
    assert len(found) == 4 + 3 * len(STRIDES)
    assert [*found][:4] == [*_answer(model)]


def test_each_step_takes_up_pixels_by_the_largest_of_its_mask_logits(model):
    sums = _layers(model, ClusterSums)
    assert len(sums) == len(STRIDES)
    names = {f"values_{i}": layer.input[0] for i, layer in enumerate(sums)}
    names |= {f"sums_{i}": layer.output for i, layer in enumerate(sums)}
    found = keras.Model(model.input, {**names, **model.output})(IMAGE, training=False)
    found = {name: np.asarray(x) for name, x in found.items()}
    for i in range(len(sums)):
        owner = np.argmax(found[keys.AUXILIARY.format(i, keys.MASK_LOGITS)], -1).reshape(-1)
        wanted = np.eye(SLOTS)[owner].T @ found[f"values_{i}"][0]
        np.testing.assert_allclose(found[f"sums_{i}"][0], wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_graph_of_open_sides_gives_what_a_call_gives(model):
    signature = [tf.TensorSpec((None, None, None, 3))]
    graph = tf.function(lambda image: model(image, training=False), signature, autograph=False)
    for size in ((65, 49), (40, 31)):
        image = np.random.RandomState(1).uniform(0, 255, (1, *size, 3)).astype("float32")
        wanted = _answer(model, image)
        for name, x in graph(image).items():
            np.testing.assert_allclose(
                np.asarray(x), wanted[name], atol=1e-3 * wanted[name].std(), err_msg=name
            )


def test_masks_may_be_finer_and_semantic_logits_coarser(other):
    assert not [x for x in other.layers if x.name.startswith("semantic_decoder")]
    shapes = {name: x.shape[1:3] for name, x in _answer(other).items()}
    assert shapes[keys.MASK_LOGITS] == shapes[keys.PIXEL_FEATURE] == (33, 25)
    assert shapes[keys.SEMANTIC_LOGITS] == (3, 2)


def test_on_a_convnext_nothing_is_finer_than_its_stem(build, monkeypatch):
    record, narrow = dl.BACKBONES["convnext_tiny"], Variant((1, 1, 1, 1), (8, 8, 16, 16))
    build_narrow = functools.partial(convnext, narrow)
    record = dataclasses.replace(record, build=build_narrow)
    monkeypatch.setitem(dl.BACKBONES, "convnext_tiny", record)
    model = build("convnext_tiny", high_resolution_output_stride=2, drop_path_keep_prob=0.4)
    found = _answer(model)
    assert found[keys.MASK_LOGITS].shape == (1, 17, 13, SLOTS)
    stages = {x.name.split(".")[2] for x in model.layers if x.name.startswith("pixel_decoder.st")}
    assert stages == set("01234")
    dropped = [x.keep_prob for x in _layers(model, DropPath)]
    np.testing.assert_allclose(dropped, [0.8, 0.6, 0.4])


# --- What it is made of ---


def test_the_pixel_decoder_attends_at_first_and_then_convolves_with_a_rate(other):
    attending = _layers(other, AxialAttention, r"pixel_decoder.*height")
    blocks = [re.search(r"stages\.(\d)\.block(\d)", x.name).groups() for x in attending]
    assert blocks == [("0", "1"), *(("1", str(n)) for n in range(1, 6))]
    convolving = _layers(other, keras.layers.Conv2D, r"pixel_decoder.*conv2_bn_act$")
    assert [x.name.split(".")[2] for x in convolving] == ["2", "3", "4"]
    assert {x.dilation_rate for x in convolving} == {(2, 2)}
    maps = [*(f"decoder_stage{n}" for n in (1, 2, 3, 4)), "decoder_output"]
    widths = [other.get_layer(other.endpoints[name]).output.shape[-1] for name in maps]
    assert widths == [256, 128, 64, 32, 16]


def test_every_map_of_the_encoder_is_normalised_before_it_joins(model):
    norms = _layers(model, keras.layers.LayerNormalization)
    assert [x.name for x in norms] == [f"pixel_decoder.backbone_norms.{n}" for n in range(4)]
    taken = [x.input._keras_history.operation.name for x in norms]
    assert taken == [model.endpoints[f"stage{n}"] for n in (5, 4, 3, 2)]
    assert {x.epsilon for x in norms} == {1e-6}


def test_activations_are_gelu_but_for_the_encoder_of_resnet(model, other):
    for network, inside in ((model, "relu"), (other, "gelu")):
        kinds: dict[str, set] = {"encoder": set(), "behind": set()}
        for layer in network.layers:
            if (end := layer.name.rpartition(".")[2]) in ("relu", "gelu"):
                kinds["encoder" if layer.name.startswith("encoder.") else "behind"].add(end)
        assert kinds == {"encoder": {inside}, "behind": {"gelu"}}


def test_branches_of_slots_are_left_out_as_the_option_says(model, other):
    dropped = _layers(other, DropPath)
    ends = ("kmeans_memory_conv3_bn", "memory_conv3_bn", "memory_ffn_conv2_bn")
    assert {x.name for x in dropped} == {
        f"transformer_decoder.kmax_decoder.{n}.block1_transformer.{end}.drop_path"
        for n in range(6)
        for end in ends
    }
    assert {x.keep_prob for x in dropped} == {0.8}
    assert not _layers(model, DropPath)


def test_every_batch_norm_has_the_epsilon_that_is_given(model, other):
    for network, epsilon in ((model, 1e-3), (other, 1e-5)):
        norms = [x for x in network._flatten_layers() if hasattr(x, "moving_variance")]
        assert {x.epsilon for x in norms} == {epsilon}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (dict(num_classes=134, ignore_label=0), 72_650_796),
        (dict(num_classes=134, ignore_label=0, backbone="axial_resnet50"), 90_577_452),
        (dict(num_classes=134, ignore_label=0, backbone="convnext_tiny"), 67_430_412),
        (
            dict(
                num_classes=19,
                num_mask_slots=256,
                high_resolution_output_stride=2,
                auxiliary_semantic_decoder=False,
            ),
            57_198_651,
        ),
    ],
)
def test_published_models_have_as_many_numbers_as_the_official_ones(zeros_first, options, count):
    with keras.StatelessScope(initialize_variables=False):
        assert dl.KMaXDeepLab(**options).count_params() == count


# --- Promises of every model ---


def test_a_keras_file_comes_back_with_its_config_and_answer(model, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is dl.KMaXDeepLab
    assert again.get_config() == model.get_config()
    one, other = _answer(again), _answer(model)
    assert [*one] == [*other]
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_preset_gives_all_but_the_last_layers_for_other_classes(model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    other = dl.from_preset(tmp_path / "preset", num_classes=9)
    assert {**other.get_config(), "num_classes": CLASSES} == model.get_config()
    stored = {w.path: np.asarray(w) for w in model.weights}
    new = {w.path for w in other.weights if w.shape != stored[w.path].shape}
    heads = {path.rpartition("/")[0].rpartition(".")[2] for path in new}
    assert heads == {"semantic_last_layer", "transformer_class_head"}
    assert len(new) == 2 * (2 + len(STRIDES))
    for weight in other.weights:
        if weight.path not in new:
            np.testing.assert_array_equal(np.asarray(weight), stored[weight.path])


def test_half_precision_is_inside_and_answers_are_float32(build):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    assert model.get_layer(model.endpoints["decoder_output"]).compute_dtype == "float16"
    for name, x in _answer(model, training=True).items():
        assert x.dtype == np.float32 and np.all(np.isfinite(x)), name


class _Toy:
    """A loss of all outputs, which are the targets' size already."""

    takes_all_outputs = True

    def __call__(self, targets, outputs, weights=None):
        self.seen = set(outputs)
        return sum(keras.ops.mean(keras.ops.square(x - 1.0)) for x in outputs.values())


def test_a_step_of_fit_moves_every_variable(build):
    model, loss = build(), _Toy()
    model.set_batch_norm(freeze_statistics=True)
    before = {w.path: np.asarray(w).copy() for w in model.trainable_weights}
    # Tracing would take longer than the step.
    model.compile(keras.optimizers.SGD(1.0), loss=loss, run_eagerly=True)
    history = model.fit(IMAGE, np.zeros((1, 1)), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert len(loss.seen) == 4 + 3 * len(STRIDES)
    still = {w.path for w in model.trainable_weights if np.all(np.asarray(w) == before[w.path])}
    # What is added to all logits of a softmax alike has no gradient.
    assert [path for path in still if not path.endswith("batch_norm_similarity/beta")] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "mobilenet_v2"}, "mobilenet_v2' doesn't have the endpoints stage1 to stage5"),
        ({"backbone": "convnext"}, "unknown backbone 'convnext'"),
        ({"high_resolution_output_stride": 8}, r"output_stride is one of \[2, 4\]; got 8"),
        ({"num_mask_slots": 0}, "num_mask_slots is at least 1; got 0"),
        ({"low_level": (("res9", 8),)}, "low_level of resnet50 is among .*; got res9"),
        ({"transformer_drop_path_keep_prob": 0.0}, "above 0 and at most 1; got 0.0"),
        ({"slots": 3}, "no option 'slots'. .*num_mask_slots"),
    ],
)
def test_what_it_can_not_be_is_refused(options, words):
    with pytest.raises(dl.InputError, match=words):
        dl.KMaXDeepLab(3, **{**TINY, **options})
