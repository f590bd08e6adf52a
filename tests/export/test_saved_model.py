"""SavedModels take pictures as they come, raw or encoded, and answer at each one's own size."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import deeplab_tf as dl
from deeplab_tf.errors import InputError
from deeplab_tf.export import VerificationError, export_model, exporter
from deeplab_tf.export.saved_model import ServedModel, _bring_to, write_saved_model
from deeplab_tf.inference.base import prepare
from deeplab_tf.inference.runner import KerasRunner, load_runner
from deeplab_tf.models.info import ModelInfo


def jpeg(picture: np.ndarray, **options) -> bytes:
    return _encoded(picture, "JPEG", quality=100, subsampling=0, **options)


def png(picture: np.ndarray) -> bytes:
    return _encoded(picture, "PNG")


def _encoded(picture, kind, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def exported(model, scenes, tmp_path_factory):
    """(folder, report)."""
    folder = tmp_path_factory.mktemp("served") / "tiny" / "1"
    return folder, export_model(model, folder, to="saved_model", calibration=scenes)


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported[0]))
    # The functions live as long as what they were loaded with.
    return {"loaded": loaded, **loaded.signatures}


def test_the_report_lies_in_the_folder(exported):
    folder, report = exported
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["agreement"] > 0.999 and report["encoded_agreement"] == 1.0
    assert report["pictures"] == 16
    assert report["signatures"] == {
        "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]},
        "encoded": {"inputs": ["encoded_image"], "outputs": ["labels", "sizes"]},
    }


def test_a_batch_of_raw_pictures_of_odd_size(signatures, model, scenes):
    picture = scenes[1]
    batch = np.stack([picture, picture[::-1], picture[:, ::-1]])
    result = signatures["serving_default"](image=tf.constant(batch))["probabilities"].numpy()
    assert result.shape == (3, *picture.shape[:2], 3) and result.dtype == np.float32
    np.testing.assert_allclose(result.sum(-1), 1, atol=1e-5)
    for given, one in zip(result, batch, strict=True):
        wanted = KerasRunner(model).scores(one).labels()
        assert (given.argmax(-1) == wanted).mean() > 0.995


def test_encoded_pictures_of_several_sizes_go_in_one_batch(signatures, model, scenes):
    batch = [png(scenes[1]), jpeg(scenes[2]), png(scenes[0][..., 0])]
    result = signatures["encoded"](encoded_image=tf.constant(batch))
    labels, sizes = result["labels"].numpy(), result["sizes"].numpy()
    assert labels.dtype == np.uint8 and labels.shape == (3, 97, 120)
    assert sizes.tolist() == [[97, 75], [51, 120], [64, 64]]
    grey = np.repeat(scenes[0][..., :1], 3, axis=-1)
    for found, (h, w), picture in zip(labels, sizes, [scenes[1], scenes[2], grey], strict=True):
        wanted = KerasRunner(model).scores(picture).labels()
        assert (found[:h, :w] == wanted).mean() > 0.98
        assert (found[h:] == 255).all() and (found[:, w:] == 255).all()


def test_a_single_encoded_picture_needs_no_cutting(signatures, scenes):
    result = signatures["encoded"](encoded_image=tf.constant([png(scenes[2])]))
    assert result["labels"].shape == (1, 51, 120)
    raw = signatures["serving_default"](image=tf.constant(scenes[2][None]))["probabilities"]
    np.testing.assert_array_equal(result["labels"], raw.numpy().argmax(-1))


def test_a_photo_on_its_side_is_turned_upright(signatures, scenes):
    picture = scenes[1]
    exif = Image.Exif()
    exif[0x0112] = 6
    result = signatures["encoded"](encoded_image=tf.constant([jpeg(picture, exif=exif)]))
    assert result["sizes"].numpy().tolist() == [[75, 97]]
    upright = np.rot90(picture, -1)
    wanted = signatures["serving_default"](image=tf.constant(upright[None].copy()))
    wanted = wanted["probabilities"].numpy().argmax(-1)
    assert (result["labels"].numpy() == wanted).mean() > 0.98


def test_bytes_that_are_no_picture_are_an_error(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["encoded"](encoded_image=tf.constant([b"hello"]))


@pytest.mark.parametrize("rule", ["fit", "none"])
def test_the_rule_of_the_model_is_kept(rule, build_tiny, model, scenes, tmp_path):
    size = None if rule == "none" else (48, 80)
    tiny = build_tiny()
    tiny.set_weights(model.get_weights())
    tiny.info = dataclasses.replace(model.info, resize=rule, image_size=size)
    folder = tmp_path / "served"
    write_saved_model(tiny, folder, info=tiny.info)
    served = ServedModel(folder)
    for picture in scenes[:3]:
        wanted = KerasRunner(tiny).probabilities(picture)
        assert np.abs(served.run(picture) - wanted).mean() < 2e-3
        assert (served.run_encoded(png(picture)) == wanted.argmax(-1)).mean() > 0.99


@pytest.mark.parametrize("size", [(97, 130), (40, 50), (64, 200), (64, 64)])
def test_pictures_are_resized_as_for_predict(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    wanted = prepare(picture, (64, 64), "stretch").image
    image = _bring_to(tf.constant(picture[None], tf.float32), (64, 64)).numpy()[0]
    assert (image != wanted).mean() < 0.005 and np.abs(image - wanted).max() <= 1


def test_argmax_of_a_model_of_fixed_size(build_tiny, model, scenes, tmp_path):
    tiny = build_tiny((40, 72, 3))
    tiny.set_weights(model.get_weights())
    report = export_model(
        tiny, tmp_path / "served", to="saved_model", labels="argmax", calibration=scenes[:4]
    )
    assert report["max_error"] is None and report["agreement"] > 0.99
    runner = load_runner(tmp_path / "served")
    assert runner.probabilities(scenes[1]).shape == (97, 75, 3)


def test_a_size_may_be_given_to_a_model_without_one(build_tiny, scenes, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        exporter, "write_saved_model", lambda model, folder, *, info, labels: written.append(info)
    )
    monkeypatch.setattr(exporter, "verify_saved_model", lambda *_, **__: {})
    folder = tmp_path / "served"
    export_model(build_tiny(), folder, to="saved_model", size=(32, 40), calibration=scenes[:1])
    assert (written[0].image_size, written[0].resize) == ((32, 40), "stretch")
    assert ModelInfo.from_json(json.loads((folder / "deeplab_tf.json").read_text())) == written[0]


def test_below_the_threshold_the_old_folder_stays(exported, model, scenes, tmp_path, monkeypatch):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "saved_model.pb").write_text("old")
    monkeypatch.setattr(ServedModel, "run", lambda self, picture: picture[..., 0] % 3)
    with pytest.raises(VerificationError):
        export_model(model, folder, to="saved_model", calibration=scenes[:2])
    assert [p.name for p in tmp_path.iterdir()] == ["served"]
    assert [p.name for p in folder.iterdir()] == ["saved_model.pb"]
    assert (folder / "saved_model.pb").read_text() == "old"


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match="isn't a SavedModel"):
        ServedModel(tmp_path)


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_cut_off_file_of_a_saved_model_is_an_error_in_words(exported, tmp_path, file):
    folder = shutil.copytree(exported[0], tmp_path / "cut")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cut: this SavedModel can't be opened"):
        ServedModel(folder)


def test_loading_has_nothing_to_warn_of(tmp_path):
    """TensorFlow says of each function with gradients of its own that it can't load them."""
    options = {"atrous_rates": (2,), "aspp_with_separable_conv": False, "aspp_convs_filters": 8}
    model = dl.DeepLabV3(2, depth_multiplier=0.1, divisible_by=1, **options)
    write_saved_model(model, tmp_path / "model", info=ModelInfo())
    graph = (tmp_path / "model" / "saved_model.pb").read_bytes()
    assert b"aspp1" in graph
    assert b"_gradient_op_type" not in graph
