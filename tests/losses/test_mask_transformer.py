"""The losses of the mask transformers together; their values are those of the golden cases."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.layers.resize import resize_bilinear
from deeplab_tf.losses.mask_transformer import MaskTransformerLoss

OTHER_BACKENDS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
MAPS = (keys.PIXEL_FEATURE, keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS)
TERMS = ("pq_class", "pq_dice", "mask_id", "instance")
# Channels of a slot: things 4 and 5, stuff 0 to 3, void.
CHANNELS, SLOTS = 7, 9


def _loss(**settings):
    return MaskTransformerLoss(6, (4, 5), 255, **{"seed": 1, **settings})


def _targets(seed=0, batch=2, size=(33, 41)):
    """Pictures of stuff in quarters and three things; a crowd and a corner without a label."""
    random = np.random.default_rng(seed)
    label = random.permuted(np.tile(np.int32([0, 1, 2, 3]), (batch, 1)), axis=1).reshape(-1, 2, 2)
    label = label.repeat(size[0] // 2 + 1, 1).repeat(size[1] // 2 + 1, 2)[:, : size[0], : size[1]]
    label, number = label.copy(), np.full(label.shape, -1, np.int32)
    classes = np.full((batch, 6), -1, np.float32)
    classes[:, :3] = random.integers(4, 6, (batch, 3))
    for i in range(batch):
        for thing, row in enumerate(random.permutation([1, 12, 22])):
            place = (i, slice(row, row + 9), slice(8 * thing, 8 * thing + 17))
            label[place], number[place] = classes[i, thing], thing
    label[:, -6:, :9], number[:, -6:, :9] = 4, -1
    label[:, :13, -9:], number[:, :13, -9:] = 255, -1
    return {keys.SEMANTIC_LABEL: label, keys.THING_ID_MASK: number, keys.THING_ID_CLASS: classes}


def _outputs(seed=0, batch=2, size=(9, 11), slots=SLOTS, auxiliary=()):
    """Of a model that knows nothing; `auxiliary` are the sizes of further answers."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    outputs = {keys.SEMANTIC_LOGITS: normal(batch, *size, 6)}
    for i, side in enumerate((size, *auxiliary)):
        form = keys.AUXILIARY.format(i - 1, "{}") if i else "{}"
        feature = normal(batch, *side, 8)
        feature /= np.linalg.norm(feature, axis=-1, keepdims=True)
        maps = feature, normal(batch, *side, slots), normal(batch, slots, CHANNELS)
        outputs |= {form.format(key): value for key, value in zip(MAPS, maps, strict=True)}
    return outputs


def _terms(loss, targets, outputs):
    terms = loss.terms(targets, outputs)
    return {name: value.numpy() for name, value in terms.items()}


def _gradients(loss, targets, outputs):
    outputs = {name: tf.constant(x) for name, x in outputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        value = loss(targets, outputs)
    return float(value), {k: x.numpy() for k, x in tape.gradient(value, outputs).items()}


def _assert_same(ours, theirs, **tolerance):
    assert [*ours] == [*theirs]
    for name in ours:
        np.testing.assert_allclose(
            ours[name], theirs[name], err_msg=name, **{"rtol": 1e-5, **tolerance}
        )


# --- What must not matter ---


def test_slots_may_come_in_any_order():
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6)])
    order = np.random.default_rng(0).permutation(SLOTS)
    shuffled = {
        name: x[..., order] if "mask_logits" in name else x[:, order] if "class" in name else x
        for name, x in outputs.items()
    }
    assert not np.array_equal(shuffled[keys.MASK_LOGITS], outputs[keys.MASK_LOGITS])
    _assert_same(_terms(_loss(), targets, shuffled), _terms(_loss(), targets, outputs))


def test_things_may_have_any_numbers():
    targets, outputs = _targets(), _outputs()
    order = np.array([4, 0, 2])
    again = dict(targets)
    number = targets[keys.THING_ID_MASK]
    again[keys.THING_ID_MASK] = np.where(number < 0, -1, order[number]).astype(np.int32)
    again[keys.THING_ID_CLASS] = np.full((2, 6), -1, np.float32)
    again[keys.THING_ID_CLASS][:, order] = targets[keys.THING_ID_CLASS][:, :3]
    _assert_same(_terms(_loss(), again, outputs), _terms(_loss(), targets, outputs))


def test_pictures_of_a_batch_have_no_part_in_each_other():
    targets, outputs = _targets(batch=3), _outputs(batch=3, auxiliary=[(5, 6)])
    alone = [
        _terms(_loss(), *({k: x[i : i + 1] for k, x in d.items()} for d in (targets, outputs)))
        for i in range(3)
    ]
    joined = {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
    _assert_same(_terms(_loss(), targets, outputs), joined)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_arithmetic_is_float32_whatever_comes_in(dtype):
    targets = _targets()
    half = {k: tf.cast(x, dtype) for k, x in _outputs(auxiliary=[(5, 6)]).items()}
    wide = {k: tf.cast(x, "float32") for k, x in half.items()}
    terms = _loss().terms(targets, half)
    assert {value.dtype for value in terms.values()} == {tf.float32}
    _assert_same(_terms(_loss(), targets, half), _terms(_loss(), targets, wide), rtol=0)


@pytest.mark.parametrize("sample", [0, 40])
def test_batch_and_sizes_may_be_unknown(sample):
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6), (3, 3)])

    def unknown(x):
        shape = (None, x.shape[1]) if x.ndim == 2 else (None, None, None, *x.shape[3:])
        shape = (None, *x.shape[1:]) if x.shape[1] == SLOTS and x.ndim == 3 else shape
        return tf.TensorSpec(shape, x.dtype)

    signature = [{k: unknown(x) for k, x in d.items()} for d in (targets, outputs)]
    loss = _loss(instance_sample_k=sample)
    run = tf.function(loss.terms, autograph=False, input_signature=signature)
    ours = {k: x.numpy() for k, x in run(targets, outputs).items()}
    _assert_same(ours, _terms(_loss(instance_sample_k=sample), targets, outputs))


@pytest.mark.parametrize("size", [(32, 40), (33, 41), (30, 38), (29, 39)])
def test_sizes_that_are_not_whole_strides_work(size):
    whole, outputs = _targets(), _outputs(size=(-(-size[0] // 4), -(-size[1] // 4)))
    targets = {k: x[:, : size[0], : size[1]] if x.ndim == 3 else x for k, x in whole.items()}
    label = {k: x[:, ::4, ::4] if x.ndim == 3 else x for k, x in targets.items()}
    _assert_same(_terms(_loss(), targets, outputs), _terms(_loss(), label, outputs))


# --- Answers ---


@pytest.mark.parametrize("count", [0, 1, 6])
def test_each_answer_has_its_terms_and_the_loss_is_the_mean_of_their_sum(count):
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6)] * count)
    loss = _loss()
    terms = _terms(loss, targets, outputs)
    prefixes = ["", *(f"auxiliary_{i}_" for i in range(count))]
    assert [*terms] == [*(p + name for p in prefixes for name in TERMS), "semantic"]
    total = sum(terms.values())
    assert total.shape == (2,) and (total > 0).all()
    np.testing.assert_allclose(loss(targets, outputs), total.mean(), rtol=1e-6)
    np.testing.assert_allclose(loss(targets, outputs, np.array([0, 3])), 1.5 * total[1], rtol=1e-6)


def test_auxiliary_answers_are_brought_to_the_main_ones_size():
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6)])
    resized = {
        name: resize_bilinear(x, (9, 11)) if x.shape[1:3] == (5, 6) else x
        for name, x in outputs.items()
    }
    _assert_same(_terms(_loss(), targets, outputs), _terms(_loss(), targets, resized))


def test_an_auxiliary_answer_equal_to_the_main_one_loses_the_same():
    outputs = _outputs()
    outputs |= {keys.AUXILIARY.format(0, key): outputs[key] for key in MAPS}
    terms = _terms(_loss(), _targets(), outputs)
    for name in TERMS:
        np.testing.assert_array_equal(terms[name], terms[f"auxiliary_0_{name}"], err_msg=name)


def test_the_gradient_is_the_slope():
    """Of an auxiliary answer, whose matching and weights are the main one's."""
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6)])
    # A crowd pushes without losing anything.
    targets[keys.SEMANTIC_LABEL][:, -6:, :9] = 255
    for key in MAPS:
        name = keys.AUXILIARY.format(0, key)
        _, gradients = _gradients(_loss(), targets, outputs)
        direction = gradients[name] / np.linalg.norm(gradients[name])
        ends = [
            float(_loss()(targets, outputs | {name: outputs[name] + step * direction}))
            for step in (-0.02, 0.02)
        ]
        slope = np.sum(gradients[name] * direction)
        assert (ends[1] - ends[0]) / 0.04 == pytest.approx(slope, rel=1e-2), name


# --- What is learnt ---


def _perfect(targets, slots=SLOTS):
    """Outputs of a model that is sure and right, its slots in any order."""
    label, number = (targets[key][:, ::4, ::4] for key in (keys.SEMANTIC_LABEL, keys.THING_ID_MASK))
    random = np.random.default_rng(0)
    # Masks: three things, then stuff 0 to 3; the rest is void.
    mask = np.where(number >= 0, number, np.where(label < 4, label + 3, 7))
    slot = random.permutation(slots)[mask]
    classes = np.full((len(label), slots), CHANNELS - 1)
    for i, n in np.ndindex(*label.shape[:1], 3):
        classes[i, slot[i][number[i] == n]] = targets[keys.THING_ID_CLASS][i, n] - 4
    for i, n in np.ndindex(*label.shape[:1], 4):
        classes[i, slot[i][label[i] == n]] = n + 2
    return {
        keys.PIXEL_FEATURE: np.eye(slots, dtype=np.float32)[slot],
        keys.MASK_LOGITS: 30 * np.eye(slots, dtype=np.float32)[slot],
        keys.MASK_CLASS_LOGITS: 30 * np.eye(CHANNELS, dtype=np.float32)[classes],
        keys.SEMANTIC_LOGITS: 30 * np.eye(6, dtype=np.float32)[np.minimum(label, 5)],
    }


def test_a_perfect_answer_loses_next_to_nothing():
    targets = _targets()
    terms = _terms(_loss(instance_temperature=0.05), targets, _perfect(targets))
    wrong = _terms(_loss(instance_temperature=0.05), targets, _outputs())
    for name in terms:
        assert (terms[name] < 1e-3).all() and (wrong[name] > 0.02).all(), name


def test_a_picture_without_labels_only_teaches_slots_that_they_are_void():
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6)])
    targets[keys.SEMANTIC_LABEL][:] = 255
    targets[keys.THING_ID_MASK][:] = -1
    targets[keys.THING_ID_CLASS][:] = -1
    for sample in (0, 20):
        loss = _loss(instance_sample_k=sample)
        for name, value in _terms(loss, targets, outputs).items():
            assert (value > 0).all() if "pq_class" in name else not value.any(), name
        for name, gradient in _gradients(loss, targets, outputs)[1].items():
            if "class" in name:
                assert (gradient[..., :-1] > 0).all() and (gradient[..., -1] < 0).all(), name
            else:
                assert not gradient.any(), name


def test_pixels_without_a_label_give_no_gradient():
    targets, outputs = _targets(), _outputs()
    void = targets[keys.SEMANTIC_LABEL][:, ::4, ::4] == 255
    assert void.any(axis=(1, 2)).all()
    for name, gradient in _gradients(_loss(), targets, outputs)[1].items():
        if gradient.ndim == 4:
            assert gradient[~void].any() and not gradient[void].any(), name


def test_a_picture_without_things_has_no_instance_term():
    targets = _targets()
    targets[keys.SEMANTIC_LABEL] = np.minimum(targets[keys.SEMANTIC_LABEL], 3)
    targets[keys.THING_ID_MASK][:] = -1
    targets[keys.THING_ID_CLASS][:] = -1
    terms = _terms(_loss(), targets, _outputs())
    assert not terms.pop("instance").any()
    assert all((value > 0).all() for value in terms.values())


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("sample", [0, 40])
def test_more_masks_than_slots_are_no_trouble(slots, sample):
    targets, outputs = _targets(), _outputs(slots=slots)
    value, gradients = _gradients(_loss(instance_sample_k=sample), targets, outputs)
    assert 0 < value < 100
    assert all(np.isfinite(x).all() and x.any() for x in gradients.values())


def test_more_pixels_may_be_asked_for_than_there_are():
    value, gradients = _gradients(_loss(instance_sample_k=4096), _targets(), _outputs())
    assert np.isfinite(value) and gradients[keys.PIXEL_FEATURE].any()


@pytest.mark.parametrize("name", MAPS)
def test_a_model_that_has_diverged_has_a_loss_that_is_nan(name):
    outputs = _outputs()
    outputs[name][:] = np.nan
    assert np.isnan(_loss()(_targets(), outputs))


def test_large_logits_stay_finite():
    outputs = {name: x * 1e4 if "logits" in name else x for name, x in _outputs().items()}
    value, gradients = _gradients(_loss(), _targets(), outputs)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in gradients.values())


# --- The semantic term ---


def test_semantic_logits_may_have_another_stride():
    targets, outputs = _targets(), _outputs()
    outputs[keys.SEMANTIC_LOGITS] = outputs[keys.SEMANTIC_LOGITS][:, ::4, ::4]
    strided = {k: x[:, ::16, ::16] if x.ndim == 3 else x for k, x in targets.items()}
    label = strided[keys.SEMANTIC_LABEL]
    log_probs = tf.nn.log_softmax(outputs[keys.SEMANTIC_LOGITS]).numpy()
    picked = -np.take_along_axis(log_probs, np.minimum(label, 5)[..., None], -1)[..., 0]
    expected = [p[n != 255].mean() for p, n in zip(picked, label, strict=True)]
    np.testing.assert_allclose(_terms(_loss(), targets, outputs)["semantic"], expected, rtol=1e-5)


def test_weights_of_pixels_are_those_of_the_semantic_term_alone():
    targets, outputs = _targets(), _outputs()
    weight = np.random.default_rng(0).choice(np.float32([1, 3]), (2, 33, 41))
    weighted = {**targets, keys.SEMANTIC_WEIGHT: weight}
    plain, ours = (_terms(_loss(), x, outputs) for x in (targets, weighted))
    assert (ours.pop("semantic") > plain.pop("semantic")).all()
    _assert_same(ours, plain, rtol=0)
    doubled = {**targets, keys.SEMANTIC_WEIGHT: weight * 0 + 2}
    again = _terms(_loss(), doubled, outputs)["semantic"]
    np.testing.assert_allclose(again, 2 * _terms(_loss(), targets, outputs)["semantic"], rtol=1e-6)


def test_the_hardest_pixels_alone_lose_more():
    values = [
        _terms(_loss(top_k_percent_pixels=share), _targets(), _outputs())["semantic"]
        for share in (1.0, 0.2)
    ]
    assert (values[1] > 1.3 * values[0]).all()


def test_the_semantic_term_may_count_a_draw_of_pixels():
    targets, outputs = _targets(), _outputs()
    number = targets[keys.THING_ID_MASK][:, ::4, ::4].reshape(2, -1)
    label = targets[keys.SEMANTIC_LABEL][:, ::4, ::4].reshape(2, -1)
    log_probs = tf.nn.log_softmax(outputs[keys.SEMANTIC_LOGITS]).numpy().reshape(2, -1, 6)
    loss = _loss(semantic_sample_k=15, semantic_sample_temperature=2.0)
    uniform = np.random.default_rng(3).random(number.shape, np.float32)
    loss.uniform = lambda shape: tf.constant(uniform)
    ours = _terms(loss, targets, outputs)["semantic"]
    for i in range(2):
        segment = np.where(number[i] >= 0, 100 + number[i], label[i])
        segment[(number[i] < 0) & (label[i] == 4)] = -1  # a crowd
        area = np.array([np.sum(segment == s) if s >= 0 else 1 for s in segment])
        score = 2.0 * np.log(len(area) / area) - np.log(-np.log(uniform[i]))
        score[label[i] == 255] -= 99999
        drawn = np.argsort(-score)[:15]
        expected = -np.mean([log_probs[i, p, label[i, p]] for p in drawn])
        assert ours[i] == pytest.approx(expected, rel=1e-5)


# --- Settings ---


def test_terms_are_proportional_to_their_weights_and_those_of_zero_are_left_out():
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6)])
    whole = _terms(_loss(pq_weight=1, mask_id_weight=1), targets, outputs)
    for key, names in (
        ("pq_weight", ("pq_class", "pq_dice")),
        ("mask_id_weight", ("mask_id",)),
        ("instance_weight", ("instance",)),
        ("semantic_weight", ("semantic",)),
    ):
        settings = {"pq_weight": 1, "mask_id_weight": 1}
        doubled, without = (_terms(_loss(**{**settings, key: x}), targets, outputs) for x in (2, 0))
        factor = {name: 2 if name.endswith(names) else 1 for name in whole}
        _assert_same(doubled, {name: factor[name] * x for name, x in whole.items()})
        _assert_same(without, {name: x for name, x in whole.items() if factor[name] == 1})


def test_draws_differ_from_call_to_call_and_repeat_with_the_seed():
    targets, outputs = _targets(), _outputs(auxiliary=[(9, 11)])
    runs = []
    for seed in (1, 1, 2):
        loss = _loss(instance_sample_k=20, seed=seed)
        runs.append([_terms(loss, targets, outputs)["instance"].tolist() for _ in range(2)])
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][0] != runs[0][1]


def test_it_is_written_and_read_with_its_settings():
    loss = _loss(pq_weight=2, focal_alpha=0.5, instance_sample_k=30, name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is MaskTransformerLoss and again.get_config() == loss.get_config()
    assert again.get_config()["thing_classes"] == (4, 5)
    ours, theirs = (_terms(x, _targets(), _outputs()) for x in (loss, again))
    _assert_same(ours, theirs, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pq_weight": -1}, "pq_weight"),
        ({"mask_id_weight": -1}, "mask_id_weight"),
        ({"instance_weight": float("nan")}, "instance_weight"),
        ({"semantic_weight": -1}, "semantic_weight"),
        ({"instance_sample_k": -1}, "instance_sample_k"),
        ({"semantic_sample_k": -1}, "semantic_sample_k"),
        ({"instance_temperature": 0}, "instance_temperature"),
        ({"focal_alpha": 1.5}, "focal_alpha"),
        ({"top_k_percent_pixels": 0}, "top_k_percent_pixels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        _loss(**settings)


def test_things_that_are_no_class_are_refused():
    with pytest.raises(InputError, match="thing_classes"):
        MaskTransformerLoss(6, (4, 6), 255)


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(InputError, match="has 8 classes for a slot"):
        MaskTransformerLoss(7, (4, 5), 255)(_targets(), _outputs())


def test_semantic_pixels_are_not_drawn_where_masks_are_finer():
    outputs = _outputs()
    outputs[keys.SEMANTIC_LOGITS] = outputs[keys.SEMANTIC_LOGITS][:, ::4, ::4]
    with pytest.raises(InputError, match=r"of their size; got \[3, 3\] and \[9, 11\]"):
        _loss(semantic_sample_k=5)(_targets(), outputs)


def test_outputs_that_are_no_stride_of_the_labels_are_refused():
    with pytest.raises(InputError, match="stride"):
        _loss()(_targets(), _outputs(size=(10, 11)))


# --- Other backends ---

# Draws inside `jax.jit` need the generator's state handed in, as Keras hands in that of layers.
OTHER = """
import sys, keras, numpy as np
from deeplab_tf.losses.mask_transformer import MaskTransformerLoss
batch = dict(np.load(sys.argv[1]))
targets = {k[2:]: x for k, x in batch.items() if k[:2] == "t_"}
outputs = {k[2:]: x for k, x in batch.items() if k[:2] == "o_"}
sampled = MaskTransformerLoss(6, (4, 5), 255, instance_sample_k=40, seed=1)
plain = MaskTransformerLoss(6, (4, 5), 255)
state = sampled.seed_generator.state

def run(outputs, value):
    with keras.StatelessScope([(state, value)]) as scope:
        drawn = sampled(targets, outputs)
    return plain(targets, outputs), drawn, scope.get_current_value(state)

if keras.backend.backend() == "jax":
    import jax
    run = jax.jit(run)
    half = {k: jax.numpy.asarray(x, "bfloat16") for k, x in outputs.items()}
    gradient = jax.jit(jax.grad(lambda x: plain(targets, x)))(half)
    assert all(x.dtype == "bfloat16" and np.isfinite(x).all() for x in gradient.values())
value, first, advanced = run(outputs, state.value)
_, second, _ = run(outputs, advanced)
assert float(first) != float(second) and abs(first - second) < 0.1 * first
print(float(value))
"""


@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_the_other_backends_give_the_same(backend, tmp_path):
    targets, outputs = _targets(), _outputs(auxiliary=[(5, 6)])
    named = {f"t_{k}": x for k, x in targets.items()} | {f"o_{k}": x for k, x in outputs.items()}
    np.savez(tmp_path / "batch.npz", **named)
    result = subprocess.run(
        [sys.executable, "-c", OTHER, str(tmp_path / "batch.npz")],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(float(result.stdout), _loss()(targets, outputs), rtol=1e-5)
