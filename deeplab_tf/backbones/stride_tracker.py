"""How strides turn into atrous rates (v3, Sec. 3.1)."""


class StrideTracker:
    """Turns strides into atrous rates once the wanted output stride is reached.

    The layer that loses its stride still runs with the old rate; those after it take the new
    one. So the features equal the dense network's, subsampled.

    Args:
        output_stride: wanted.
        keeps_rate: False gives the layer that loses its stride the new rate already, which
            torchvision's MobileNetV3 was trained with.
    """

    def __init__(self, output_stride: int, *, keeps_rate: bool = True):
        self._output_stride = output_stride
        self._keeps_rate = keeps_rate
        self._stride = 1
        self._rate = 1

    def next(self, stride: int) -> tuple[int, int]:
        """(stride, rate) for the next layer, which asks for `stride`."""
        if self._stride < self._output_stride:
            self._stride *= stride
            return stride, self._rate
        rate = self._rate
        self._rate *= stride
        return 1, rate if self._keeps_rate else self._rate
