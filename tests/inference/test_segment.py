"""One call segments a picture; its results are pictures at the picture's own size."""

import io

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.errors import InputError
from deeplab_tf.inference.base import Runner
from deeplab_tf.inference.segment import OUTPUTS, segment
from deeplab_tf.models.info import ModelInfo

PORTRAIT = ModelInfo(("background", "person"), ((0, 0, 0), (0, 153, 255)))
ROAD = ModelInfo(("sky", "road", "car"), ((128, 128, 128), (128, 64, 128), (64, 0, 128)))


class ByColour(Runner):
    """Class i where channel i - 1 is brightest; class 0 in the dark. Half resolution."""

    def __init__(self, info: ModelInfo, classes: int = 2):
        self.name, self.info, self.classes = "by colour", info, classes

    def forward(self, batch: np.ndarray) -> np.ndarray:
        bright = batch[:, ::2, ::2, : self.classes - 1].astype(np.float32) / 255
        return np.concatenate([1 - bright.sum(-1, keepdims=True), bright], -1)


def half_red(height: int = 40, width: int = 60) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :, 0] = 255
    return image


@pytest.fixture
def result():
    return segment(ByColour(PORTRAIT), half_red())


def test_labels_have_the_pictures_size(result):
    assert result.labels.shape == (40, 60) and result.labels.dtype == np.uint8
    assert (result.labels[:, 32:] == 1).all() and (result.labels[:, :28] == 0).all()
    assert result.probabilities.shape == (40, 60, 2)
    assert result.shares == pytest.approx({"background": 0.5, "person": 0.5}, abs=0.03)


def test_files_bytes_and_pictures_are_taken(tmp_path):
    image = Image.fromarray(half_red())
    image.save(tmp_path / "photo.png")
    buffer = io.BytesIO()
    image.save(buffer, "png")
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), buffer.getvalue(), image):
        assert (segment(ByColour(PORTRAIT), source).labels[:, 32:] == 1).all()
    assert segment(ByColour(PORTRAIT), tmp_path / "photo.png").name == "photo"
    assert segment(ByColour(PORTRAIT), half_red()).name == "picture"


def test_a_rotated_photo_is_segmented_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(half_red()).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "photo.png", exif=exif)
    assert segment(ByColour(PORTRAIT), tmp_path / "photo.png").labels.shape == (40, 60)


def test_the_person_is_cut_out_and_the_rest_blurred(result):
    cut = result.cut_out()
    assert (cut[:, 33:, 3] == 255).all() and (cut[:, :27, 3] == 0).all()
    np.testing.assert_array_equal(cut[..., 3], np.rint(result.alpha("person") * 255))
    np.testing.assert_array_equal(result.cut_out(0)[..., 3], np.rint(result.alpha(0) * 255))
    np.testing.assert_array_equal(result.blur(3)[:, 33:], result.image[:, 33:])
    np.testing.assert_array_equal(result.overlay()[:, :27], result.image[:, :27])
    assert result.overlay()[0, 50].tolist() == [127, 77, 128]


def test_a_model_without_background_needs_to_be_told_what_to_keep():
    result = segment(ByColour(ROAD, 3), half_red())
    with pytest.raises(InputError, match="no background .* sky, road, car"):
        result.cut_out()
    np.testing.assert_allclose(result.alpha(["road", 2]), result.alpha([1, "car"]))
    assert result.alpha("road")[:, 35:].min() > 0.9
    with pytest.raises(InputError, match="there is no class 'tree'; there are sky, road, car"):
        result.alpha("tree")
    with pytest.raises(InputError, match="there is no class 3"):
        result.alpha(3)


def test_a_model_without_names_has_its_background_first():
    result = segment(ByColour(ModelInfo(), 3), half_red())
    assert result.class_values() == [1, 2]
    assert [*result.shares] == ["class 0", "class 1"]
    assert result.colors == ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def test_a_folder_gets_every_output(result, tmp_path):
    paths = result.save(tmp_path / "out")
    ends = [end for kind, end in OUTPUTS.items() if kind != "panoptic"]
    assert [path.name for path in paths] == [f"picture{end}" for end in ends]
    for path in paths:
        assert Image.open(path).size == (60, 40)
    np.testing.assert_array_equal(np.asarray(Image.open(paths[0])), result.labels)
    assert Image.open(paths[2]).mode == "RGBA"


def test_what_a_model_cannot_give_is_left_out_of_a_folder(tmp_path):
    result = segment(ByColour(ROAD, 3), half_red())
    assert len(result.save(tmp_path / "a")) == 2
    assert len(result.save(tmp_path / "b", classes=["car"])) == 4


def test_a_file_gets_one_output(result, tmp_path):
    assert result.save(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]
    result.save(tmp_path / "b.png", "cutout")
    assert Image.open(tmp_path / "b.png").mode == "RGBA"
    assert [*tmp_path.iterdir()] and len([*tmp_path.iterdir()]) == 2


def test_outputs_that_make_no_sense_are_refused(result, tmp_path):
    with pytest.raises(InputError, match="a label map needs a .png"):
        result.save(tmp_path / "a.jpg", "mask")
    with pytest.raises(InputError, match="JPEG has no transparency"):
        result.save(tmp_path / "a.jpg", "cutout")
    with pytest.raises(InputError, match="no output 'masks'; it is one of mask, overlay"):
        result.save(tmp_path, ["masks"])
    assert not [*tmp_path.iterdir()]
