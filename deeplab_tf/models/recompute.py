"""Less memory for a training step: maps are computed again on the way back instead of kept.

"Training Deep Nets with Sublinear Memory Cost", https://arxiv.org/abs/1604.06174: the graph is cut
into segments. What passes from one to another is kept; what is inside a segment is forgotten, and
made once more when its gradients are due.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from deeplab_tf.models.macs import own_size

# Any size gives the same cuts, more or less: maps shrink alike.
_SIZE = (513, 513)
_MOST_SEGMENTS = 40


@dataclasses.dataclass(frozen=True)
class Step:
    """A call of a layer: the tensors it takes, those it gives, and the bytes of the latter."""

    takes: tuple[int, ...]
    gives: tuple[int, ...]
    size: int


class Recomputed:
    """A functional model as a chain of segments, for calls in training.

    Args:
        model: its layers are shared, not copied.
    """

    def __init__(self, model: keras.Model):
        self._outputs = model.output
        nodes = _nodes(model)
        tensors = {id(x): x for node in nodes for x in node.output_tensors}
        last = {id(x) for x in model.outputs}
        first = {id(x) for x in model.inputs}
        steps = [node for node in nodes if not node.is_input]
        sizes = _sizes(model, tensors)
        cuts = best_cuts([_step(node, sizes) for node in steps], first, last, sizes)
        self._segments: list[tuple[keras.Model, list[int], list[int]]] = []
        for start, end in zip([0, *cuts], [*cuts, len(steps)], strict=True):
            inside = {id(x) for node in steps[start:end] for x in node.output_tensors}
            later = {id(x) for node in steps[end:] for x in node.input_tensors} | last
            taken = {id(x) for node in steps[start:end] for x in node.input_tensors} - inside
            inputs = [key for key in tensors if key in taken]
            outputs = [key for key in tensors if key in inside & later]
            part = keras.Model([tensors[key] for key in inputs], [tensors[key] for key in outputs])
            self._segments.append((part, inputs, outputs))
        self._inputs = [id(x) for x in model.inputs]

    def __len__(self) -> int:
        return len(self._segments)

    def __call__(self, inputs: Any) -> Any:
        """All of the model's outputs, as it gives them in training."""
        values = dict(zip(self._inputs, keras.tree.flatten(inputs), strict=True))
        for part, taken, given in self._segments:
            found = _forgetful(part, [values[key] for key in taken])
            values |= zip(given, found, strict=True)
        return keras.tree.map_structure(lambda x: values[id(x)], self._outputs)


def _forgetful(part: keras.Model, inputs: list) -> list:
    """A segment's outputs; only these and its inputs are kept for the gradients."""
    # Copied: what TensorFlow hands out is the variable, which has changed by the second time.
    state = [ops.copy(variable) for variable in part.non_trainable_variables]
    count = len(inputs)

    def run(*arguments):
        # Without side effects, since it runs twice: of the statistics of a batch norm and the
        # states of random numbers it takes those of before, and gives the new ones.
        outputs, after = part.stateless_call(
            arguments[count:], state, [*arguments[:count]], training=True
        )
        return keras.tree.flatten(outputs), after

    weights = [ops.copy(variable) for variable in part.trainable_variables]
    outputs, after = keras.remat(run)(*inputs, *weights)
    for variable, value in zip(part.non_trainable_variables, after, strict=True):
        variable.assign(value)
    return outputs


def _nodes(model: keras.Model) -> list:
    """Calls of layers, each after those it takes something from."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in model._nodes_by_depth[depth]]


def _sizes(model: keras.Model, tensors: dict[int, Any]) -> dict[int, int]:
    """Bytes of each tensor of one picture."""
    image = keras.KerasTensor((1, *(own_size(model) or _SIZE), 3))
    specs = keras.Model(model.inputs, [*tensors.values()]).compute_output_spec(image)
    return {
        key: math.prod(spec.shape) * (2 if "16" in spec.dtype else 4)
        for key, spec in zip(tensors, specs, strict=True)
    }


def _step(node, sizes: dict[int, int]) -> Step:
    gives = tuple(id(x) for x in node.output_tensors)
    return Step(
        takes=tuple(id(x) for x in node.input_tensors),
        gives=gives,
        size=sum(sizes[key] for key in gives),
    )


def best_cuts(
    steps: Sequence[Step], first: set[int], last: set[int], sizes: dict[int, int]
) -> list[int]:
    """Places to cut a chain of steps at so that a training step needs the least memory.

    That is what passes any of the cuts, and the largest segment with all that is in it. For each
    number of segments, they are filled in turn to their share of the whole; the last half of each
    is searched for the cut that the fewest bytes pass.

    Args:
        steps: in an order in which they can run.
        first: tensors that are there before.
        last: tensors that are asked for, which are kept anyway.
        sizes: bytes of each tensor.

    Returns:
        Numbers of steps, ascending, that begin a new segment; none if no cut saves anything.
    """
    passing = [_passing(steps, place, first | last) for place in range(len(steps))]
    cost = [sum(sizes[key] for key in keys) for keys in passing]
    total = sum(step.size for step in steps)
    best: tuple[int, list[int]] = (total, [])
    for count in range(2, min(_MOST_SEGMENTS, len(steps)) + 1):
        cuts = _filled(steps, cost, total / count)
        kept = sum(sizes[key] for key in set().union(*(passing[cut] for cut in cuts)))
        edges = [0, *cuts, len(steps)]
        segments = (
            sum(step.size for step in steps[start:end])
            for start, end in zip(edges, edges[1:], strict=False)
        )
        best = min(best, (kept + max(segments), cuts))
    return best[1]


def _passing(steps: Sequence[Step], place: int, kept: set[int]) -> set[int]:
    """Tensors made before a cut and taken after it, but for those that are kept anyway."""
    made = {key for step in steps[:place] for key in step.gives}
    return (made & {key for step in steps[place:] for key in step.takes}) - kept


def _filled(steps: Sequence[Step], cost: Sequence[int], share: float) -> list[int]:
    """Cuts after segments of at most a share, each where the fewest bytes pass."""
    cuts: list[int] = []
    start = end = 0
    while end < len(steps):
        inside, half = 0, start + 1
        for end in range(start, len(steps)):
            inside += steps[end].size
            if inside <= share / 2:
                half = end + 1
            if inside > share and end > start:
                break
        else:
            return cuts
        start = min(range(half, end + 1), key=lambda place: (cost[place], -place))
        cuts.append(start)
    return cuts
