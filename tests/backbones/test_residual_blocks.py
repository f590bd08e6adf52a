"""Groups of residual blocks, where they stand and what follows them."""

import keras
import pytest
from keras import layers

from deeplab_tf.backbones.axial_resnet import MAX_DEEPLAB_S, RESNET_50, SWIDERNET, axial_resnet
from deeplab_tf.backbones.residual_blocks import Network, residual_blocks
from deeplab_tf.layers.atrous import AtrousConv2D
from deeplab_tf.layers.axial_attention import AxialAttention
from deeplab_tf.layers.drop_path import DropPath
from deeplab_tf.layers.dual_path_transformer import JointAttention, Transformer

pytestmark = pytest.mark.usefixtures("nothing_drawn")
NARROW = Transformer(filters=8, num_heads=2, feed_forward_channels=8)


@pytest.fixture(scope="module")
def nothing_drawn():
    with keras.StatelessScope(initialize_variables=False):
        yield


def _group(variant=RESNET_50, *, output_stride=16, memory=False, network=None, **options):
    """A group of two blocks behind a map of 32 channels: its model, and what comes out."""
    network = network or Network(variant, output_stride)
    image, slots = keras.Input((None, None, 32)), keras.Input((4, 6)) if memory else None
    settings = {"count": 2, "stride": 16, "width": 8, "name": "group", **options}
    x, memory = residual_blocks(image, slots, network, **settings)
    inputs, outputs = ([image, slots], [x, memory]) if slots is not None else (image, x)
    return keras.Model(inputs, outputs), x, memory


def _rates(model) -> list[tuple[int, int]]:
    """(stride, rate) of each 3x3 convolution."""
    found = [x for x in model.layers if isinstance(x, layers.Conv2D) and x.kernel_size == (3, 3)]
    assert all(isinstance(x, AtrousConv2D) == (x.dilation_rate[0] > 1) for x in found)
    return [(x.strides[0], x.dilation_rate[0]) for x in found]


@pytest.mark.parametrize(
    ("stride", "own_stride", "output_stride", "wanted"),
    [
        (8, 2, 16, [(2, 1), (1, 1)]),
        (16, 2, 16, [(1, 1), (1, 2)]),
        (16, 2, 8, [(1, 2), (1, 4)]),
        # Behind the encoder there is no stride to lose.
        (4, 1, 16, [(1, 1), (1, 1)]),
        (32, 1, 16, [(1, 2), (1, 2)]),
        (32, 1, 32, [(1, 1), (1, 1)]),
    ],
)
def test_a_groups_place_decides_its_strides_and_rates(stride, own_stride, output_stride, wanted):
    model, *_ = _group(output_stride=output_stride, stride=stride, own_stride=own_stride)
    assert _rates(model) == wanted


def test_a_basic_blocks_second_convolution_has_the_rate_of_the_next_block():
    model, *_ = _group(SWIDERNET, output_stride=8, stride=8, own_stride=2, count=2)
    assert _rates(model) == [(1, 1), (1, 2), (1, 2), (1, 2)]


def test_the_stride_before_a_block_decides_whether_it_attends():
    model, *_ = _group(MAX_DEEPLAB_S, stride=8, own_stride=2)
    names = [layer.name for layer in model.layers if isinstance(layer, AxialAttention)]
    assert names == [f"group.block2.attention.{axis}_axis" for axis in ("height", "width")]


def test_a_sum_comes_out_and_no_memory_where_none_went_in():
    model, x, memory = _group()
    assert x.shape == (None, None, None, 32) and memory is None
    assert model.layers[-1].name == "group.block2.add"


def test_a_transformer_follows_each_block_with_its_share_of_pictures():
    network = Network(RESNET_50, 16, drop_path_keep_prob=0.6)
    model, x, memory = _group(network=network, memory=True, transformer=NARROW, own_stride=2)
    assert memory.shape == (None, 4, 6) and x.shape[-1] == 32
    attends = [layer.name for layer in model.layers if isinstance(layer, JointAttention)]
    paths = ("memory", "pixel")
    assert sorted(attends) == sorted(
        f"group.block{n}_transformer.{path}_attention" for n in (1, 2) for path in paths
    )
    dropped = {x.name: x.keep_prob for x in model.layers if isinstance(x, DropPath)}
    for name, keep_prob in dropped.items():
        assert keep_prob == pytest.approx(0.7 if "block1" in name else 0.6)
    assert len(dropped) == 2 * (1 + 3)


def test_all_of_a_network_has_one_activation():
    image = keras.Input((33, 33, 3))
    options = dict(output_stride=32, backbone_width_multiplier=0.125, stem_width_multiplier=0.25)
    found = axial_resnet(MAX_DEEPLAB_S, image, activation="gelu", **options)
    model = keras.Model(image, found["res5"])
    kinds = {x.activation for x in model.layers if isinstance(x, layers.Activation)}
    assert kinds == {keras.activations.gelu}
    assert not [x.name for x in model.layers if isinstance(x, layers.ReLU)]
