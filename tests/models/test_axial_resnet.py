"""The backbones of the panoptic models: what each is made of, block by block."""

import dataclasses
import re

import keras
import pytest

import deeplab_tf as dl
from deeplab_tf.backbones import axial_resnet as module
from deeplab_tf.backbones.axial_resnet import axial_resnet
from deeplab_tf.layers.axial_attention import AxialAttention
from deeplab_tf.layers.drop_path import DropPath
from deeplab_tf.layers.switchable_atrous import SwitchableAtrousConv2D
from deeplab_tf.models.presets import PRESETS

pytestmark = pytest.mark.usefixtures("zeros_first")
VARIANTS = {
    "resnet50": module.RESNET_50,
    "resnet50_beta": module.RESNET_50_BETA,
    "wide_resnet41": module.SWIDERNET,
    "axial_resnet_l": module.AXIAL_RESNET_L,
    "axial_deeplab_l": module.AXIAL_DEEPLAB_L,
    "axial_swidernet": module.AXIAL_SWIDERNET,
    "max_deeplab_s": module.MAX_DEEPLAB_S,
}
NARROW = dict(backbone_width_multiplier=0.125, stem_width_multiplier=0.125)


def _network(variant, *, output_stride=32, side=65, **options) -> tuple[keras.Model, dict]:
    """A narrow network, and its endpoints."""
    image = keras.Input((side, side, 3))
    variant = VARIANTS[variant] if isinstance(variant, str) else variant
    found = axial_resnet(variant, image, output_stride=output_stride, **{**NARROW, **options})
    return keras.Model(image, found["res5"]), found


def _blocks(model) -> dict[int, int]:
    """Stage -> how many blocks it has."""
    names = [re.fullmatch(r"encoder\.stage(\d)\.block(\d+)\.add", x.name) for x in model.layers]
    found: dict[int, int] = {}
    for match in filter(None, names):
        found[int(match[1])] = max(found.get(int(match[1]), 0), int(match[2]))
    return found


def _layers(model, kind, ending: str) -> dict[tuple[int, int], keras.Layer]:
    """(stage, block) -> the layer of that kind and name."""
    pattern = re.compile(rf"encoder\.stage(\d)\.block(\d+){re.escape(ending)}")
    matches = [(pattern.fullmatch(x.name), x) for x in model.layers if isinstance(x, kind)]
    return {(int(m[1]), int(m[2])): layer for m, layer in matches if m}


def _axial(model) -> set[tuple[int, int]]:
    return set(_layers(model, AxialAttention, ".attention.height_axis"))


@pytest.mark.parametrize(
    ("name", "stem", "blocks"),
    [
        ("resnet50", 64, {2: 3, 3: 4, 4: 6, 5: 3}),
        ("resnet50_beta", 128, {2: 3, 3: 4, 4: 6, 5: 3}),
        ("axial_deeplab_l", 128, {2: 3, 3: 4, 4: 6, 5: 3}),
        ("wide_resnet41", 64, {1: 3, 2: 3, 3: 6, 4: 3, 5: 3}),
    ],
)
def test_stages_double_their_width_and_have_their_blocks(name, stem, blocks):
    # Whole widths, so one block each: what is looked at are endpoints.
    variant = dataclasses.replace(VARIANTS[name], blocks=(1, 1, 1, 1))
    options = dict(backbone_width_multiplier=None, stem_width_multiplier=1.0)
    _, found = _network(variant, **options)
    widths = {key: x.shape[-1] for key, x in found.items() if key.startswith("res")}
    first = 128 if 1 in blocks else stem
    assert widths == {"res1": first, "res2": 256, "res3": 512, "res4": 1024, "res5": 2048}
    assert set(found) == {*widths, *(key.replace("res", "stage") for key in widths)}
    if name != "axial_deeplab_l":  # of the same blocks as the next
        assert _blocks(_network(name)[0]) == blocks


def test_the_sizes_of_axial_deeplab_are_one_network_in_four_widths():
    builds = {size: dl.BACKBONES[f"axial_deeplab_{size}"].build for size in ("s", "m", "l", "xl")}
    variants = {size: build.args[0] for size, build in builds.items()}
    assert {size: v.width for size, v in variants.items()} == {"s": 0.5, "m": 0.75, "l": 1, "xl": 2}
    assert len({dataclasses.replace(v, width=1.0) for v in variants.values()}) == 1
    one = dataclasses.replace(module.AXIAL_DEEPLAB_M, blocks=(1, 1, 1, 1))
    _, found = _network(one, backbone_width_multiplier=None, stem_width_multiplier=1.0)
    assert [found[f"res{n}"].shape[-1] for n in (1, 2, 5)] == [128, 192, 1536]
    # A given width stands for the variant's own, it doesn't multiply it.
    _, found = _network(one, backbone_width_multiplier=0.25)
    assert found["res5"].shape[-1] == 512


def test_a_layer_multiplier_counts_blocks_rounded_down():
    model, _ = _network("wide_resnet41", backbone_layer_multiplier=1.5)
    assert _blocks(model) == {1: 3, 2: 4, 3: 9, 4: 4, 5: 4}
    model, _ = _network("resnet50", backbone_layer_multiplier=0.34)
    assert _blocks(model) == {2: 1, 3: 1, 4: 2, 5: 1}
    with pytest.raises(dl.InputError, match="backbone_layer_multiplier=0.3 leaves a stage without"):
        _network("resnet50", backbone_layer_multiplier=0.3)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("resnet50", None),
        ("axial_resnet_l", set()),
        # By the stride before a block: the first of stage 4 still convolves.
        ("max_deeplab_s", {(n, b) for n in (2, 3) for b in range(1, 5)} | {(4, 1)}),
        ("axial_swidernet", {(n, b) for n in (1, 2, 3) for b in range(1, 7)} | {(4, 1)}),
    ],
)
def test_blocks_attend_by_the_stride_before_them(name, plain):
    # Counted as if nothing were dilated.
    model, _ = _network(name, output_stride=8, backbone_layer_multiplier=0.67)
    every = {(n, b + 1) for n, count in _blocks(model).items() for b in range(count)}
    assert _axial(model) == (set() if plain is None else every - plain)
    convolutions = _layers(model, keras.layers.Conv2D, ".conv2_bn_act")
    assert not set(convolutions) & _axial(model)


def test_depths_of_attention_are_those_of_the_paper():
    for name, bottleneck, key, value in (
        ("axial_resnet_l", 2, 1, 2),
        ("max_deeplab_s", 2, 1, 2),
        ("axial_swidernet", 4, 2, 4),
    ):
        model, _ = _network(name, backbone_width_multiplier=0.25, backbone_layer_multiplier=0.34)
        width = 16 * 32 * 0.25
        (attention,) = [
            x
            for (n, _), x in _layers(model, AxialAttention, ".attention.width_axis").items()
            if n == 5
        ]
        assert (attention.key_depth, attention.value_depth) == (width * key, width * value)
        assert attention.num_heads == 8 and attention.span is None
        before = model.get_layer("encoder.stage5.block1.conv1_bn_act")
        assert before.filters == width * bottleneck


@pytest.mark.parametrize(
    ("output_stride", "sides", "rates"),
    [
        (32, (33, 17, 9, 5, 3), {4: (1, 1), 5: (1, 1)}),
        (16, (33, 17, 9, 5, 5), {4: (1, 1), 5: (1, 2)}),
        # The first block of a stage that lost its stride still has the rate before it.
        (8, (33, 17, 9, 9, 9), {4: (1, 2), 5: (2, 4)}),
    ],
)
def test_what_loses_its_stride_gains_a_rate(output_stride, sides, rates):
    for name in ("resnet50", "max_deeplab_s"):
        options = dict(output_stride=output_stride, backbone_layer_multiplier=0.67)
        model, found = _network(name, **options)
        assert tuple(found[f"res{n}"].shape[1] for n in range(1, 6)) == sides
        for (stage, block), layer in _layers(model, keras.layers.Conv2D, ".conv2_bn_act").items():
            wanted = rates.get(stage, (1, 1))[min(block, 2) - 1]
            assert layer.dilation_rate == (wanted, wanted), layer.name


def test_the_second_convolution_of_a_basic_block_has_the_new_rate_at_once():
    model, found = _network("wide_resnet41", output_stride=8)
    first = _layers(model, keras.layers.Conv2D, ".conv1_bn_act")
    second = _layers(model, keras.layers.Conv2D, ".conv2_bn")
    assert [x[3, 1].dilation_rate for x in (first, second)] == [(1, 1), (1, 1)]
    assert [x[4, 1].dilation_rate for x in (first, second)] == [(1, 1), (2, 2)]
    assert [x[4, 2].dilation_rate for x in (first, second)] == [(2, 2), (2, 2)]
    # The last stage is of bottlenecks, whose middle is twice as wide.
    middle = _layers(model, keras.layers.Conv2D, ".conv2_bn_act")
    assert {stage for stage, _ in middle} == {5}
    assert [middle[5, b].dilation_rate for b in (1, 2, 3)] == [(2, 2), (4, 4), (4, 4)]
    assert middle[5, 1].filters == 2 * 64 and found["res5"].shape[-1] == 4 * 64


def test_a_shortcut_is_projected_where_the_width_changes_and_else_subsampled():
    model, _ = _network("resnet50")
    projected = _layers(model, keras.layers.Conv2D, ".shortcut")
    assert set(projected) == {(n, 1) for n in (2, 3, 4, 5)}
    # A first stage of the stem's width, and a stage as wide as the one before.
    same = dataclasses.replace(module.RESNET_50, stem="3x3")
    model, _ = _network(same, backbone_width_multiplier=0.125, stem_width_multiplier=0.5)
    pooled = _layers(model, keras.layers.MaxPooling2D, ".shortcut")
    assert set(pooled) == {(2, 1)} and pooled[2, 1].strides == (2, 2)


@pytest.mark.parametrize("name", ["resnet50", "max_deeplab_s", "wide_resnet41"])
def test_squeeze_and_excite_gates_every_block(name):
    blocks = {2: 1, 3: 1, 4: 2, 5: 1} if name != "wide_resnet41" else {1: 3, 2: 1, 3: 2, 4: 1, 5: 1}
    for wanted in (True, False):
        options = dict(backbone_layer_multiplier=0.34, use_squeeze_and_excite=wanted)
        model, _ = _network(name, **options)
        gates = _layers(model, keras.layers.Conv2D, ".squeeze_and_excite.se_conv")
        every = {(n, b + 1) for n, count in blocks.items() for b in range(count)}
        assert set(gates) == (every if wanted else set())


def test_switches_are_in_stages_that_end_beyond_a_stride():
    for beyond, stages in ((0, set()), (32, {5}), (16, {4, 5})):
        options = dict(use_sac_beyond_stride=beyond, backbone_layer_multiplier=0.67)
        model, _ = _network("wide_resnet41", output_stride=16, **options)
        found = [x.name for x in model.layers if isinstance(x, SwitchableAtrousConv2D)]
        assert {int(name.split(".stage")[1][0]) for name in found} == stages
        contexts = {x.name for x in model.layers if x.name.endswith("post_global_context")}
        assert {int(name.split(".stage")[1][0]) for name in contexts} == stages
        if beyond == 16:
            # Its first convolution has the stride, so no switch, but contexts nonetheless.
            assert "encoder.stage4.block1.conv1_bn_act" not in found
            assert "encoder.stage4.block1.conv1_bn_act.post_global_context" in contexts
            assert "encoder.stage4.block1.conv2_bn" in found


@pytest.mark.parametrize(
    ("name", "schedule", "wanted"),
    [
        ("resnet50", "linear", {4: [0.85] * 2, 5: [0.85, 0.8]}),
        ("resnet50", "constant", {4: [0.8], 5: [0.8, 0.8]}),
        ("wide_resnet41", "linear", {2: [0.95], 3: [0.95, 0.9], 4: [0.9, 0.85], 5: [0.85, 0.8]}),
    ],
)
def test_blocks_are_left_out_more_the_deeper_they_are(name, schedule, wanted):
    options = dict(drop_path_keep_prob=0.8, drop_path_schedule=schedule)
    model, _ = _network(name, **options)
    found: dict[int, list] = {}
    for (stage, _), layer in _layers(model, DropPath, ".drop_path").items():
        found.setdefault(stage, []).append(round(layer.keep_prob, 4))
    shown = {stage: sorted(set(values), reverse=True) for stage, values in found.items()}
    assert shown == {stage: sorted(set(v), reverse=True) for stage, v in wanted.items()}
    assert not [x for x in _network(name)[0].layers if isinstance(x, DropPath)]


def test_an_unknown_schedule_is_named():
    with pytest.raises(dl.InputError, match="linear or constant; got 'quadratic'"):
        _network("resnet50", drop_path_schedule="quadratic")


def test_a_new_network_is_the_chain_of_its_shortcuts():
    model, _ = _network("max_deeplab_s", backbone_layer_multiplier=0.34)
    last = [x for x in model.layers if re.search(r"block.*\.conv[23]_bn\.BatchNorm$", x.name)]
    assert len(last) == 5
    assert all(float(keras.ops.max(keras.ops.abs(x.gamma))) == 0.0 for x in last)


def test_every_batch_norm_has_the_epsilon_that_is_given():
    model, _ = _network("max_deeplab_s", batch_norm_epsilon=1e-5, backbone_layer_multiplier=0.34)
    norms = [x for x in model._flatten_layers() if hasattr(x, "moving_variance")]
    assert {x.epsilon for x in norms} == {1e-5}
    attention = [x for x in model.layers if isinstance(x, AxialAttention)]
    assert len(norms) > 3 * len(attention) > 0


@pytest.mark.parametrize(
    ("preset", "published", "more"),
    [
        ("axial_deeplab_l_cityscapes", 44.9e6, 0.009),
        ("axial_deeplab_xl_cityscapes", 173.0e6, 0.002),
    ],
)
def test_axial_deeplab_is_about_as_large_as_its_paper_says(preset, published, more):
    """Not exactly: our count is 0.4 and 0.3 million above it, and we don't know why."""
    assert PRESETS[preset].cost[0] == pytest.approx(published * (1 + more), rel=0.0005)
