"""`deeplab-tf models` lists every preset and tells all about one."""

import json

import pytest
from click.testing import CliRunner

from deeplab_tf.cli import main
from deeplab_tf.cli.models import short
from deeplab_tf.models.presets import PRESETS, preset_names, shipped_names


def run(*arguments):
    return CliRunner().invoke(main, ["models", *arguments])


@pytest.fixture(scope="module")
def listed():
    result = run("--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_preset_is_in_the_list_with_its_cost(listed):
    assert [row["name"] for row in listed] == preset_names()
    for row in listed:
        assert row["parameters"] > 1e5 and row["multiply_adds"] > 1e7
        assert row["shipped"] == (row["name"] in shipped_names())
        assert len(row["classes"]) == len(row["colors"]) == row["settings"]["num_classes"]
        assert len(set(row["classes"])) == len(row["classes"])
        assert row["result"] or row["name"] == "deeplab_v3_mobilenet_v2_dm05_portrait"
        assert row["source"] and row["license"] and row["pixels"]


# Published as numbers in a paper, not as weights; or as weights that need Caffe to be read.
WITHOUT = {
    *(f"deeplab_v1_{name}_voc" for name in ("large_fov", "msc_large_fov", "7x7", "4x4")),
    *(f"deeplab_v2_vgg_16_{name}_voc" for name in ("large_fov", "aspp_s", "aspp_l")),
    "deeplab_v3_mobilenet_v2_aspp_voc",
    "deeplab_v3_resnet_101_voc",
    "deeplab_v3_plus_resnet_101_voc",
    "deeplab_v3_plus_xception_65_plain_voc",
    "deeplab_v3_resnet_101_garden_voc",
    "deeplab_v3_plus_resnet_101_garden_voc",
    "deeplab_v3_plus_resnet_101_garden_cityscapes",
    "deeplab_v3_plus_xception_71_cityscapes",
    "auto_deeplab_s_cityscapes",
    "auto_deeplab_m_cityscapes",
    "auto_deeplab_l_cityscapes",
    "axial_deeplab_l_cityscapes",
    "axial_deeplab_xl_cityscapes",
}


def test_every_published_model_says_where_its_weights_are(listed):
    weights = {row["name"]: row["weights"] for row in listed if row["name"] in PRESETS}
    assert {name for name, address in weights.items() if not address} == WITHOUT
    official = [address for name, address in weights.items() if address and "torch" not in name]
    assert all(address.startswith(("http://", "https://")) for address in official)
    assert len(set(official)) == len(official)


def test_the_table_has_a_line_for_each_with_whole_names(monkeypatch, listed):
    rows = {row["name"]: row for row in listed}
    monkeypatch.setattr("deeplab_tf.models.presets.describe_preset", rows.__getitem__)
    output = run().output
    for name, row in rows.items():
        (line,) = [line.split() for line in output.splitlines() if line.split()[:1] == [name]]
        assert line[1] == str(len(row["classes"])) and line[4] == short(row["parameters"])
        assert line[5] == short(row["multiply_adds"])
        assert line[6] == _where(name, row)


def _where(name, row):
    if name == "portrait":
        return "inside"
    if "_v2_garden_" in name or "_keras_hub_" in name:
        return "elsewhere"
    return "convert" if row["weights"] else "none"


def test_weights_that_convert_does_not_read_are_shown_without_the_command():
    output = run("deeplab_v3_plus_resnet_50_keras_hub_voc").output
    assert "kaggle.com" in output and "(which convert doesn't read yet)" in output
    assert "deeplab-tf convert" not in output


def test_pixels_are_told_in_words():
    output = run("deeplab_v3_resnet_50_torch_coco").output
    assert "520x520, RGB 0..255; made RGB less the ImageNet means, over their deviations" in output


def test_one_preset_is_told_in_full():
    output = run("deeplab_v3_plus_mobilenet_v2_ade20k").output
    assert "DeepLabV3Plus, mobilenet_v2, output stride 16" in output
    assert "257x257" in output and "mIoU 32.04" in output
    assert "deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz" in output
    assert "151: other, wall, building" in output and "clock, flag" in output
    assert "deeplab-tf convert CHECKPOINT --model deeplab_v3_plus_mobilenet_v2_ade20k" in output


def test_one_preset_as_json_is_one_record():
    row = json.loads(run("portrait", "--json").stdout)
    assert row["name"] == "portrait" and row["weights"] == "in the package"


def test_a_preset_without_weights_says_so_and_what_was_published():
    output = run("deeplab_v3_resnet_101_voc").output
    assert "58.16M parameters; 81.02B multiply-adds at 513x513" in output
    assert "not published" in output and "convert" not in output


def test_a_shipped_preset_says_how_to_use_it():
    output = run("portrait").output
    assert "in the package" in output and "predict photo.jpg --model portrait" in output


def test_an_unknown_name_is_answered_with_the_nearest():
    result = run("deeplab_v3_mobilnet_v2_voc")
    assert result.exit_code == 2
    assert "Did you mean 'deeplab_v3_mobilenet_v2_voc'?" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (1500, "1.50k"), (2113557, "2.11M"), (21233054912, "21.23B")],
)
def test_large_numbers_are_short(number, text):
    assert short(number) == text
