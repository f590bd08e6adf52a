"""What ImageNet training puts on top of a backbone: one record per family.

Names are those of the official checkpoints, in the scope of the backbone.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from keras import initializers

from deeplab_tf.layers.conv import BatchNormSettings


@dataclasses.dataclass(frozen=True)
class Wide:
    """A 1x1 convolution beside the pooling; without batch norm it has a bias.

    Its width grows with a depth multiplier above one, and doesn't shrink with one below
    (MobileNetV2, Sec. 5).
    """

    name: str
    filters: int
    activation: str
    batch_norm: BatchNormSettings | None = None


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Layers between a backbone's features and the logits of a whole picture.

    Attributes:
        logits: the last convolution's name.
        keep_prob: of dropout before it.
        use_bias: whether it has one.
        initializer: makes that of its kernel.
        endpoint: the map of the backbone that it begins with.
        before_pooling, after_pooling: wide convolutions around the mean over all positions.
        norm: name of the layer normalisation behind the mean, if there is one.
        options: of the backbone, which a segmentation model leaves out.
        option_layers: regular expression of the layers that come with these options.
    """

    logits: str = "logits"
    keep_prob: float = 1.0
    use_bias: bool = True
    initializer: Callable[[], Any] = initializers.HeNormal
    endpoint: str = "res5"
    before_pooling: Wide | None = None
    after_pooling: Wide | None = None
    norm: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    option_layers: str = ""

    def layers(self, scope: str) -> str:
        """Regular expression of the names of all its layers that have variables."""
        wide = [part.name for part in (self.before_pooling, self.after_pooling) if part]
        names = [re.escape(name) for name in (self.logits, *wide)]
        names += [name for name in (self.norm, self.option_layers) if name]
        return rf"{re.escape(scope)}\.({'|'.join(names)})(\.BatchNorm)?"


_NORMAL = functools.partial(initializers.TruncatedNormal, stddev=0.09)
_MOBILE = functools.partial(
    Classifier, logits="Logits.Conv2d_1c_1x1", keep_prob=0.8, initializer=_NORMAL
)

RESNET = Classifier()
# Without the fully connected layers of the original, nine tenths of its weights.
VGG = Classifier(keep_prob=0.5)
XCEPTION = Classifier(keep_prob=0.5, initializer=_NORMAL)
MOBILENET_V2 = _MOBILE(
    before_pooling=Wide("Conv_1", 1280, "relu6", BatchNormSettings(epsilon=1e-3, momentum=0.997))
)
MOBILENET_V3_LARGE = _MOBILE(after_pooling=Wide("Conv_2", 1280, "hard_swish"))
MOBILENET_V3_SMALL = _MOBILE(after_pooling=Wide("Conv_2", 1024, "hard_swish"))
# Its wide convolution is the backbone's last one.
MOBILENET_EDGETPU = _MOBILE()
CONVNEXT = Classifier(
    initializer=functools.partial(initializers.TruncatedNormal, stddev=0.02),
    endpoint="stage5",
    norm="norm",
)
NAS = Classifier(
    use_bias=False,
    initializer=functools.partial(
        initializers.VarianceScaling, 1 / 3, mode="fan_in", distribution="uniform"
    ),
    options={"nas_architecture_options": {"nas_use_classification_head": True}},
    option_layers=r"(downsample_os\d+|classification_head)_(conv|bn)",
)
