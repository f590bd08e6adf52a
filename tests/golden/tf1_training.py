"""Cases of the official training code: losses, schedules, steps, preprocessing, mean IoU."""

import inspect
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf1_semantic
import weights

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.checkpoints.tf1 import source_name, variable_path
from deeplab_tf.datasets import transforms
from deeplab_tf.layers.normalization import BatchNorm
from deeplab_tf.layers.resize import resize_nearest
from deeplab_tf.losses.semantic import SoftmaxCrossEntropy
from deeplab_tf.metrics.mean_iou import ConfusionMatrix
from deeplab_tf.training.optimizers import (
    Momentum,
    decayed_variables,
    l2_penalty,
    learning_rate_multipliers,
)
from deeplab_tf.training.schedules import Schedule

_MEANS = (123.15, 115.90, 103.06)
# Options that flags may leave out, at the official default.
_DEFAULT_SETTINGS = {"num_classes": 21, "output_stride": 16, "atrous_rates": None}


def run_case(case: dict, arrays: dict[str, np.ndarray] | None, path: Path) -> None:
    """Finds the check by the official function that the case called."""
    for words, check in _CHECKS.items():
        if words in case["function"]:
            check(case, arrays)
            return
    raise AssertionError(f"{path}: no check for {case['function']!r}")


def _close(name, ours, stored, tolerance):
    """Largest difference relative to the largest stored value."""
    ours, stored = np.asarray(ours), np.asarray(stored)
    assert ours.shape == stored.shape, f"{name}: shape {ours.shape}, stored {stored.shape}"
    scale = np.abs(stored).max()
    error = np.abs(ours - stored).max()
    assert error <= tolerance * scale, f"{name}: {error:.3g} of {scale:.3g}"


# --- Losses, schedules, IoU ---


def _check_losses(case, arrays):
    for row in case["rows"]:
        arguments = dict(row["arguments"])
        labels = arrays[row["labels"]][..., 0]
        loss = SoftmaxCrossEntropy(
            arguments.pop("num_classes"),
            arguments.pop("ignore_label"),
            class_weights=arguments.pop("loss_weight"),
            step=tf.constant(row["global_step"]),
            **arguments,
        )
        logits = {name: tf.constant(arrays[key]) for name, key in row["logits"].items()}
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = {name: loss(labels, value) for name, value in logits.items()}
            total = tf.add_n(list(losses.values()))
        gradients = tape.gradient(total, logits)
        for name, value in row["losses"].items():
            error = abs(float(losses[name]) - value)
            assert error <= 1e-5 * abs(value), f"{row['name']}, {name}: off by {error:.3g}"
        for name, key in row["gradient"].items():
            _close(f"{row['name']}, gradient of {name}", gradients[name], arrays[key], 2e-5)


def _schedule(arguments: dict) -> Schedule:
    names = {
        "learning_policy": "policy",
        "base_learning_rate": "base_rate",
        "learning_rate_decay_step": "decay_step",
        "learning_rate_decay_factor": "decay_factor",
        "training_number_of_steps": "steps",
        "learning_power": "power",
        "slow_start_learning_rate": "slow_start_rate",
        "slow_start_burnin_type": "burn_in",
        "end_learning_rate": "end_rate",
        "boundary_learning_rates": "boundary_rates",
    }
    return Schedule(**{names.get(name, name): value for name, value in arguments.items()})


def _check_learning_rates(case, arrays):
    for row in case["rows"]:
        schedule = _schedule(row["arguments"])
        steps, wanted = arrays[f"steps_{row['name']}"], arrays[f"lr_{row['name']}"]
        ours = np.array([float(schedule(int(step))) for step in steps])
        error = np.abs(ours - wanted).max()
        assert error <= 1e-6 * row["arguments"]["base_learning_rate"], f"{row['name']}: {error}"


def _check_mean_iou(case, arrays):
    for row in case["rows"]:
        name = row["name"]
        matrix = ConfusionMatrix(row["num_classes"], row["ignore_label"])
        pairs = zip(arrays[f"labels_{name}"], arrays[f"predictions_{name}"], strict=True)
        for (labels, predictions), wanted in zip(
            pairs, row["overall_after_each_picture"], strict=True
        ):
            matrix.update(labels, predictions)
            assert abs(matrix.mean_iou - wanted) <= 1e-6, name
        np.testing.assert_array_equal(matrix.matrix, arrays[f"confusion_{name}"], name)
        assert abs(matrix.mean_iou - row["overall"]) <= 1e-6, name
        np.testing.assert_allclose(matrix.class_iou, arrays[f"class_iou_{name}"], atol=1e-6)


# --- Preprocessing ---


def _example(case, arrays, picture: str) -> dict:
    facts = case["pictures"][picture]
    make = weights.input_image
    return {
        keys.IMAGE: tf.constant(make(facts["height"], facts["width"], facts["seed"])),
        keys.SEMANTIC_LABEL: tf.cast(arrays[f"label_{picture}"][..., 0], tf.int32),
    }


def _compare_example(entry, arrays, example, suffix=""):
    for name, facts in entry["outputs"].items():
        if name.endswith("_image"):
            image = np.asarray(example[keys.IMAGE], np.float32)
            assert list(image.shape) == facts["shape"], name
            image = image[:: facts.get("stored_row_step", 1)]
            np.testing.assert_allclose(image, arrays[name], atol=1e-3, err_msg=name)
        else:
            flipped = name.endswith("_flipped_label")
            shown = transforms.flip(example) if flipped else example
            label = np.asarray(shown[keys.SEMANTIC_LABEL])[..., None]
            np.testing.assert_array_equal(label, arrays[name], name)


def _preprocess(example: dict, entry: dict) -> dict:
    """The official order: resize to range, scale, pad, crop, flip."""
    arguments = entry["arguments"]
    random = entry.get("random", {})
    if arguments.get("min_resize_value"):
        example = transforms.resize_to_range(
            example,
            min_size=arguments["min_resize_value"],
            max_size=arguments.get("max_resize_value"),
            factor=arguments.get("resize_factor"),
        )
    size = (arguments["crop_height"], arguments["crop_width"])
    if arguments["is_training"] and "min_scale_factor" in arguments:
        scales = transforms.scale_factors(
            arguments["min_scale_factor"],
            arguments["max_scale_factor"],
            arguments["scale_factor_step_size"],
        )
        assert len(scales) == 1
        example = transforms.scale_by(example, scales[0])
    # The official table forgets resnet_v1_18 and pads it with 127.5.
    means = arguments["model_variant"] in ("resnet_v1_50", "resnet_v1_101")
    example = transforms.pad_to(
        example,
        size,
        pixel=_MEANS if means else 127.5,
        ignore_label=arguments.get("ignore_label", 255),
    )
    if arguments["is_training"]:
        example = transforms.crop_at(example, random["crop_offset"], size)
        if random["flip"]:
            example = transforms.flip(example)
    return example


def _check_preprocess(case, arrays):
    for text, wanted in case["random_scales"].items():
        np.testing.assert_array_equal(
            transforms.scale_factors(*map(float, text.split(","))), np.float32(wanted)
        )
    for entry in case["rows"]:
        example = _preprocess(_example(case, arrays, entry["picture"]), entry)
        _compare_example(entry, arrays, example)
    for entry in case["scaled"]:
        example = transforms.scale_by(_example(case, arrays, entry["picture"]), entry["scale"])
        _compare_example(entry, arrays, example)
    for entry in case["cropped"]:
        example = _example(case, arrays, entry["picture"])
        example = transforms.crop_at(example, entry["offset"], entry["size"])
        _compare_example(entry, arrays, example)


def _check_sizes(case, arrays):
    for height, width, smallest, largest, factor, keep, *wanted in arrays["resize_to_range"]:
        size = transforms.size_in_range(
            [height, width], int(smallest), int(largest) or None, int(factor) or None, bool(keep)
        )
        assert size.numpy().tolist() == wanted, (height, width, smallest, largest, factor)
    for height, width, scale, *wanted in arrays["scaled"]:
        size = transforms.scaled_size([int(height), int(width)], scale)
        assert size.numpy().tolist() == [int(n) for n in wanted], (height, width, scale)


def _check_nearest(case, arrays):
    start = 0
    for size_in, size_out in arrays["pairs"]:
        rows = tf.reshape(tf.range(size_in), (1, -1, 1, 1))
        ours = np.asarray(resize_nearest(rows, (size_out, 1))).ravel()
        wanted = arrays["indices"][start : start + size_out]
        np.testing.assert_array_equal(ours, wanted, f"{size_in} -> {size_out}")
        start += size_out


# --- What trains, and how much ---


def _model_of_flags(flags: dict, num_classes: int, **extra):
    """The model that official command-line flags describe; their lists may hold strings."""
    settings = {**_DEFAULT_SETTINGS, "num_classes": num_classes}
    settings["decoder_output_stride"] = None
    for name, value in flags.items():
        if isinstance(value, list):
            value = [int(n) for n in value]
        if name in inspect.signature(dl.DeepLabV3.__init__).parameters:
            settings[name] = value
    settings["model_variant"] = flags["model_variant"]
    return tf1_semantic.build_model(settings, **extra)


def _check_multipliers(case, arrays):
    for name, entry in case["models"].items():
        model = _model_of_flags(entry["settings"], 21)
        ten = entry["settings"]["last_layer_gradient_multiplier"]
        ours = learning_rate_multipliers(model, ten)
        logits_only = learning_rate_multipliers(model, ten, last_layers_contain_logits_only=True)
        rows = case[entry["variables"]]
        paths = {variable_path(row[0], model): row[1:] for row in rows}
        assert set(paths) == {variable.path for variable in model.trainable_variables}, name
        for path, (wanted, wanted_logits_only) in paths.items():
            assert ours.get(path, 1.0) == wanted, path
            assert logits_only.get(path, 1.0) == wanted_logits_only, path
        with_one = {source_name(p, model): f for p, f in learning_rate_multipliers(model).items()}
        assert with_one == entry["with_multiplier_1"], name


def _check_trainable(case, arrays):
    for name, entry in case["models"].items():
        model = _model_of_flags(entry["settings"], 21)
        names = [source_name(v.path, model).split("/")[-1] for v in model.trainable_variables]
        counts = {last: names.count(last) for last in set(names)}
        assert counts == entry["trainable"], name
        assert len(decayed_variables(model)) == entry["regularized"], name
        norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
        assert len(norms) == entry["batch_norm_layers"], name
        for group in entry["batch_norm"]:
            layers = {n.name for n in norms if _same_settings(n, group)}
            assert layers == {scope.replace("/", ".") for scope in group["layers"]}, name
        for norm in norms:
            norm.freeze_statistics = True
        # Frozen statistics leave gamma and beta to be trained.
        assert len(model.trainable_variables) == sum(entry["trainable"].values()), name


def _same_settings(norm, group) -> bool:
    # TensorFlow's fused kernel raises 1e-5 to 1.001e-5, and that is what it reports.
    epsilon = 1.001e-5 if norm.epsilon == 1e-5 else norm.epsilon
    return epsilon == group["epsilon"] and norm.momentum == group["decay"]


# --- Optimiser steps ---


class _Step:
    """One model, its optimiser and its data, as a case describes them."""

    def __init__(self, case, arrays):
        effective, flags = case["effective"], case["flags"]
        self.case, self.arrays = case, arrays
        self.model = _model_of_flags(flags, case["num_classes"], dropout_rate=0.0)
        tf1_semantic.fill(self.model, case)
        self.frozen = not effective["fine_tune_batch_norm"]
        self.model.set_batch_norm(freeze_statistics=self.frozen)
        self._drop(case["dropout"])
        batch, height, width, _ = case["input"]["shape"]
        make = weights.input_image
        seed = case["input"]["seed"]
        self.images = np.stack([make(height, width, seed + i) for i in range(batch)])
        self.labels = arrays["labels"].reshape(batch, height, width)
        schedule = Schedule(
            effective["learning_policy"],
            base_rate=effective["base_learning_rate"],
            steps=flags.get("training_number_of_steps", 30000),
        )
        self.decay = effective["weight_decay"]
        self.optimizer = Momentum(
            schedule,
            effective["momentum"],
            weight_decay_l2=self.decay,
            decayed=[v.path for v in decayed_variables(self.model)],
            multipliers=learning_rate_multipliers(
                self.model, effective["last_layer_gradient_multiplier"]
            ),
        )
        self.optimizer.build(self.model.trainable_variables)
        self.loss = SoftmaxCrossEntropy(
            case["num_classes"],
            case["ignore_label"],
            class_weights=flags.get("label_weights", 1.0),
            top_k_percent_pixels=flags.get("top_k_percent_pixels", 1.0),
            hard_example_mining_step=flags.get("hard_example_mining_step", 0),
        )

    def _loss_and_gradients(self, images):
        """Eagerly: the graph's rewriting alone moves gradients by more than the precise bound."""
        with tf.GradientTape() as tape:
            loss = self.loss(self.labels, self.model(images, training=True))
        return loss, tape.gradient(loss, [v.value for v in self.model.trainable_variables])

    def _drop(self, dropout):
        """Puts the case's mask where the dropout layer is."""
        if not isinstance(dropout, dict):
            return
        bits = np.unpackbits(self.arrays["dropout_keep_mask_packed"])
        shape = dropout["shape"]
        mask = bits[: np.prod(shape)].reshape(shape).astype("float32") / dropout["keep_prob"]
        layer = self.model.get_layer("concat_projection_dropout")
        layer.call = lambda inputs, training=False: inputs * mask if training else inputs

    def gradients(self):
        """(cross entropy, {path: gradient with L2, before the multiplier}, plain gradients)."""
        variables = self.model.trainable_variables
        loss, plain = self._loss_and_gradients(tf.cast(self.images, tf.float32))
        decayed = {v.path for v in decayed_variables(self.model)}
        whole = {
            v.path: np.asarray(g) + (self.decay * np.asarray(v) if v.path in decayed else 0.0)
            for v, g in zip(variables, plain, strict=True)
        }
        return float(loss), whole, plain


def _check_train_step(case, arrays):
    step = _Step(case, arrays)
    precise = step.frozen
    paths = [(name, variable_path(name, step.model)) for name, _, _ in case["variables"]]
    _check_activations(step, 1e-4 if precise else 1e-3)
    wanted = _wanted(case, arrays, paths, precise)
    numbers = _run(step, paths)
    beyond = _beyond(numbers, wanted, {})
    noise = {name: np.zeros_like(numbers[name]) for name in beyond}
    for seed in range(0 if precise else _NOISE_SAMPLES):
        if not beyond:
            break
        _add_noise(noise, case, arrays, paths, numbers, seed)
        beyond = _beyond(numbers, wanted, noise)
    for name in sorted(noise):
        print(f"{name}: noise up to {noise[name].max():.3g} of {np.abs(numbers[name]).max():.3g}")
    assert not beyond, f"beyond what is allowed: {beyond}"


def _window(case, name: str, rank: int) -> tuple[slice, ...]:
    """Which elements of a variable a case has stored."""
    steps = case["outputs"].get(name, {"stored_step": [1] * rank})["stored_step"]
    return tuple(slice(None, None, step) for step in steps)


def _run(step, paths) -> dict[str, np.ndarray]:
    """Takes all steps; every number that a case may have stored.

    Weights and moving statistics count as the change since the start.
    """
    case, model, numbers = step.case, step.model, {}
    moving = [path for name, path in paths if "moving_" in name]
    initial = {weight.path: np.asarray(weight).copy() for weight in model.weights}
    for number in range(len(case["steps"])):
        cross_entropy, gradients, plain = step.gradients()
        numbers[f"loss {number}"] = np.array(cross_entropy)
        numbers[f"l2 {number}"] = np.asarray(l2_penalty(model, step.decay))
        numbers[f"rate {number}"] = np.asarray(step.optimizer.learning_rate)
        norms = [np.linalg.norm(gradients[path]) for _, path in paths if path in gradients]
        numbers[f"norms {number}"] = np.array(norms)
        if number == 0:
            for name, path in paths:
                if path in gradients:
                    window = _window(case, name, gradients[path].ndim)
                    numbers[f"gradient {name}"] = gradients[path][window]
        step.optimizer.apply(plain, model.trainable_variables)
        changes = {w.path: np.asarray(w) - initial[w.path] for w in model.weights}
        for name, path in paths:
            window = _window(case, name, changes[path].ndim)
            numbers[f"change {number + 1} {name}"] = changes[path][window]
        norms = [np.linalg.norm(changes[path]) for path in moving]
        numbers[f"moving {number}"] = np.array(norms)
    cross_entropy, _, _ = step.gradients()
    numbers[f"loss {len(case['steps'])}"] = np.array(cross_entropy)
    return numbers


def _wanted(case, arrays, paths, precise) -> dict[str, tuple]:
    """{name: (stored, allowed difference)}; see the generator's README for the bounds.

    Norms are those of every step where the case is precise, else of the first.
    """
    losses = [*(entry["cross_entropy"] for entry in case["steps"])]
    losses.append(case["after_last_step"]["cross_entropy"])
    wanted = {}
    for number, loss in enumerate(losses):
        bound = 1e-5 if precise else (1e-4 if number == 0 else 3e-2)
        wanted[f"loss {number}"] = loss, bound * loss
    for number, entry in enumerate(case["steps"]):
        wanted[f"l2 {number}"] = entry["l2"], 1e-4 * entry["l2"]
        wanted[f"rate {number}"] = entry["learning_rate"], 1e-6 * entry["learning_rate"]
    for number in range(len(case["steps"]) if precise else 1):
        norms = arrays["gradient_norms"][number]
        allowed = 1e-4 * norms + 1e-7 if precise else 2e-2 * norms + 1e-4
        wanted[f"norms {number}"] = norms, allowed
        norms = arrays["moving_change_norms"][number]
        wanted[f"moving {number}"] = norms, 1e-2 * norms + 1e-6
    return wanted | _wanted_variables(case, arrays, paths, precise)


def _wanted_variables(case, arrays, paths, precise) -> dict[str, tuple]:
    """Gradients, and changes of weights and moving statistics."""
    make, gain = weights.make, case["weights"]["gain"]
    shapes = {name: (shape, kind) for name, shape, kind in case["variables"]}
    wanted = {}
    for name, _ in paths:
        dotted = name.replace("/", ".")
        facts = case["outputs"].get(name, {})
        noise = 5 * facts.get("gradient_rounding_noise", 0.0)
        gradient = arrays.get(f"grad_{dotted}")
        if gradient is not None:
            bound = 1e-4 if precise else max(5e-3, noise)
            wanted[f"gradient {name}"] = gradient, bound * facts["gradient_absmax"]
        for number in range(1, len(case["steps"]) + 1):
            weight = arrays.get(f"weight_step{number}_{dotted}")
            moving = arrays.get(f"{dotted}_step{number}")
            if weight is not None:
                bound = 1e-4 if precise else max(5e-3 if number == 1 else 3e-2, noise)
                after = weight
            elif moving is not None:
                bound, after = 1e-2, moving
            else:
                continue
            shape, kind = shapes[name]
            before = make(name, shape, kind, gain)[_window(case, name, len(shape))]
            change = after - before
            allowed = bound * np.abs(change).max() + 2 * np.spacing(np.abs(before))
            wanted[f"change {number} {name}"] = change, allowed
    return wanted


def _beyond(numbers, wanted, noise) -> dict[str, float]:
    """By how much numbers exceed what is allowed, or five times their noise."""
    beyond = {}
    for name, (stored, allowed) in wanted.items():
        assert numbers[name].shape == np.shape(stored), name
        allowed = np.maximum(allowed, 5 * noise.get(name, 0.0))
        excess = (np.abs(numbers[name] - stored) - allowed).max()
        if excess > 0:
            beyond[name] = float(excess)
    return beyond


# A change this small makes a ReLU near zero switch in one sample and not in the next, and which of
# them switch depends on the processor's kernels, so samples are drawn until all is explained.
_NOISE_SAMPLES = 24


def _add_noise(noise, case, arrays, paths, numbers, seed) -> None:
    """How far the numbers named in `noise` move when every weight changes by about 1e-7.

    With batch statistics a fresh network is so badly conditioned that exact arithmetic misses
    some stored float32 numbers too: in float64 the worst gradient norm is 2.5 % off and the
    second loss 3.3 %, and a change of the weights by 1e-7 moves the loss after two steps by
    8 %. So the rule for stored gradients goes for all numbers of such a case, with its noise
    measured here: the reference knew that of its own kernels only. The case with frozen
    statistics has no such need and no such rule.
    """
    step = _Step(case, arrays)
    random = np.random.RandomState(seed)
    for weight in step.model.weights:
        change = 1 + 1e-7 * random.standard_normal(weight.shape)
        weight.assign(np.asarray(weight) * change.astype("float32"))
    ours = _run(step, paths)
    for name in noise:
        change = np.abs(ours[name] - numbers[name])
        # Norms stand for a variable each; the elements of one variable share their noise.
        change = change if name.startswith(("norms", "moving")) else change.max()
        noise[name] = np.maximum(noise[name], change)


_ACTIVATIONS = {
    "act_stem": ("MobilenetV2.Conv.relu6",),
    "act_image_pooling": ("image_pooling.relu",),
    "act_aspp0": ("aspp0.relu",),
    "act_concat_projection": ("concat_projection.relu",),
    "act_after_dropout": ("concat_projection_dropout",),
    "act_logits": ("logits.semantic",),
}


def _check_activations(step, tolerance):
    """Training-mode activations of the first step; moving statistics are put back."""
    model = step.model
    initial = {weight.path: np.asarray(weight).copy() for weight in model.weights}
    for name, facts in step.case["outputs"].items():
        if not name.startswith("act_"):
            continue
        layer = model.get_layer(_ACTIVATIONS[name][0])
        part = keras.Model(model.input, layer.output)
        value = np.asarray(part(step.images.astype("float32"), training=True))
        stored = value[tuple(slice(None, None, n) for n in facts["stored_step"])]
        _close(name, stored, step.arrays[name], tolerance)
        for weight in model.weights:
            weight.assign(initial[weight.path])


_CHECKS = {
    "add_softmax_cross_entropy_loss_for_each_scale": _check_losses,
    "get_model_learning_rate": _check_learning_rates,
    "_build_deeplab": _check_train_step,
    "get_model_gradient_multipliers": _check_multipliers,
    "what train.py builds": _check_trainable,
    "sizes only": _check_sizes,
    "preprocess_image_and_label": _check_preprocess,
    "resize_nearest_neighbor": _check_nearest,
    "eval.py main()": _check_mean_iou,
}
