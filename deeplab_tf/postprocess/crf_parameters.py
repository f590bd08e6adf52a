"""Parameters of the fully connected CRF, and the sets that the DeepLab papers used.

"v1" is https://arxiv.org/abs/1412.7062, "v2" is https://arxiv.org/abs/1606.00915.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_tf.errors import InputError

NORMALIZATIONS = ("symmetric", "before", "after", "none")


@dataclasses.dataclass(frozen=True)
class CrfParameters:
    """The two kernels, in the symbols of the papers (v1, Eq. 3; v2, Eq. 3).

        k(i, j) = w1 exp(-|p_i - p_j|^2 / (2 sigma_alpha^2) - |I_i - I_j|^2 / (2 sigma_beta^2))
                + w2 exp(-|p_i - p_j|^2 / (2 sigma_gamma^2))

    Attributes:
        w1: weight of the bilateral kernel, of positions and colours. Zero leaves a kernel out.
        sigma_alpha: its width in pixels, above 0; or two, (horizontal, vertical).
        sigma_beta: its width in colour levels of 0..255, above 0; or three, one for each channel.
        w2: weight of the Gaussian kernel, of positions alone.
        sigma_gamma: its width in pixels, above 0; or two.
        iterations: of mean field, at least 0.
        normalization: of a kernel's message by n, the filter's answer to ones: "symmetric"
            (1 / sqrt(n) before and after filtering), "before" or "after" (1 / n), or "none".
        compatibility: None for Potts: unequal classes cost one. Or mu(l, l'), [C, C]: what class
            l costs beside l' (Potts would be ones with zeros on the diagonal). It is used as it
            is, where the C++ code takes the mean of mu and its transpose.

    The C++ code's kernel types (constant, diagonal, full) differ in what it can learn, not in what
    it infers: the widths above are those of the diagonal one.

    Raises:
        InputError: a value of another type or range.
    """

    w1: float = 4.0
    sigma_alpha: float | tuple[float, ...] = 67.0
    sigma_beta: float | tuple[float, ...] = 3.0
    w2: float = 3.0
    sigma_gamma: float | tuple[float, ...] = 1.0
    iterations: int = 10
    normalization: str = "symmetric"
    compatibility: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self):
        for name in ("w1", "w2"):
            self._set(name, _number(getattr(self, name), name))
        for name, count in (("sigma_alpha", 2), ("sigma_beta", 3), ("sigma_gamma", 2)):
            self._set(name, _widths(getattr(self, name), name, count))
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int | np.integer):
            raise InputError(f"iterations is a whole number; got {self.iterations!r}.")
        if self.iterations < 0:
            raise InputError(f"iterations is at least 0; got {self.iterations}.")
        self._set("iterations", int(self.iterations))
        if self.normalization not in NORMALIZATIONS:
            raise InputError(
                f"normalization is one of {[*NORMALIZATIONS]}; got {self.normalization!r}."
            )
        if self.compatibility is not None:
            self._set("compatibility", _matrix(self.compatibility))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CrfParameters":
        """From what `to_dict` gave, or a part of it.

        Raises:
            InputError: a name that no parameter has.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise InputError(f"The CRF has no parameter {unknown[0]!r}; it has {known}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is a number; got {value!r}.") from None
    if not np.isfinite(number):
        raise InputError(f"{name} is finite; got {number}.")
    return number


def _widths(value: Any, name: str, count: int) -> float | tuple[float, ...]:
    """One width, or one for each feature."""
    several = isinstance(value, list | tuple | np.ndarray)
    numbers = tuple(_number(part, name) for part in (value if several else [value]))
    if several and len(numbers) != count:
        raise InputError(f"{name} is a width above 0 or {count} of them; got {value!r}.")
    if min(numbers) <= 0:
        raise InputError(f"{name} is a width above 0; got {value!r}.")
    return numbers if several else numbers[0]


def _matrix(value: Any) -> tuple[tuple[float, ...], ...]:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise InputError("compatibility is None or a finite matrix, [classes, classes].")
    return tuple(tuple(row) for row in matrix.tolist())


# Found by the authors on validation sets, by search over w1, sigma_alpha and sigma_beta.
CRF_PRESETS = {
    # The script that ran the CRF in the Caffe release of v1, LargeFOV.
    "deeplab_v1_large_fov": CrfParameters(w1=4, sigma_alpha=49, sigma_beta=5, w2=3, sigma_gamma=3),
    # v2 with ResNet-101 on PASCAL VOC.
    "deeplab_v2_resnet_101": CrfParameters(w1=4, sigma_alpha=67, sigma_beta=3, w2=3, sigma_gamma=1),
}


def find_parameters(parameters: str | CrfParameters) -> CrfParameters:
    """A preset by its name; a record is handed back.

    Raises:
        InputError: no preset has the name.
    """
    if isinstance(parameters, CrfParameters):
        return parameters
    if parameters not in CRF_PRESETS:
        raise InputError(
            f"parameters is one of {[*CRF_PRESETS]} or CrfParameters; got {parameters!r}."
        )
    return CRF_PRESETS[parameters]
