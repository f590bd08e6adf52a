"""A genotype that makes no network is refused, and says why."""

import pytest

import deeplab_tf as dl
from deeplab_tf.backbones.genotype import Genotype, check_levels

CELL = {
    "operations": ["separable_3x3_2", "none", "atrous_3x3", "max_pool_3x3"],
    "inputs": [0, 1, 2, 0],
    "outputs": [2, 3],
}


def test_a_cell_is_read_from_json():
    assert Genotype.from_json(CELL) == Genotype(
        ("separable_3x3_2", "none", "atrous_3x3", "max_pool_3x3"), (0, 1, 2, 0), (2, 3)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"operations": []}, "operations come in pairs, .*; got 0"),
        ({"operations": ["none"] * 3}, "operations come in pairs, 100 at most; got 3"),
        ({"operations": ["none"] * 102}, "operations come in pairs, 100 at most; got 102"),
        ({"operations": ["x" * 10**5] * 4}, "no operation 'xxx.{,30}xxx';"),
        ({"operations": ["none"] * 3 + ["conv_3x3"]}, "no operation 'conv_3x3'"),
        ({"operations": ["none"] * 3 + ["atrous_3x5"]}, "no operation 'atrous_3x5'"),
        ({"operations": ["none"] * 3 + ["separable_3x3"]}, "no operation 'separable_3x3'"),
        ({"operations": ["none"] * 3 + ["separable_3x3_0"]}, "no operation 'separable_3x3_0'"),
        ({"operations": ["none"] * 3 + [None]}, "no operation None"),
        ({"inputs": [0, 1, 2]}, "one input for each of the 4 operations; got 3"),
        ({"inputs": [0, 2, 1, 0]}, "operation 1 reads a state from 0 to 1; got 2"),
        ({"inputs": [0, 1, 3, 0]}, "operation 2 reads a state from 0 to 2; got 3"),
        ({"inputs": [0, 1, -1, 0]}, "operation 2 reads a state from 0 to 2; got -1"),
        ({"inputs": [0, True, 2, 0]}, "operation 1 reads a state from 0 to 1; got True"),
        ({"outputs": []}, r"from 2 to 3, the combinations; got \[\]"),
        ({"outputs": [1, 2]}, r"from 2 to 3, the combinations; got \[1, 2\]"),
        ({"outputs": [2, 4]}, r"from 2 to 3, the combinations; got \[2, 4\]"),
        ({"outputs": [3, 3]}, r"different states from 2 to 3, the combinations; got \[3, 3\]"),
        ({"outputs": "23"}, "outputs is a list; got '23'"),
        ({"used": [2, 3]}, "has the lists operations, inputs, outputs; got"),
    ],
)
def test_a_cell_that_cannot_be_built_is_refused(change, words):
    with pytest.raises(dl.InputError, match=f"^nas_genotype.*{words}"):
        Genotype.from_json({**CELL, **change})


def test_a_cell_without_one_of_its_lists_is_refused():
    with pytest.raises(dl.InputError, match=r"got \['inputs', 'operations'\]"):
        Genotype.from_json({key: CELL[key] for key in ("operations", "inputs")})
    with pytest.raises(dl.InputError, match=r"got \['1', 'inputs', 'operations', 'outputs'\]"):
        Genotype.from_json({**CELL, 1: []})
    with pytest.raises(dl.InputError, match="got 'darts'"):
        Genotype.from_json("darts")


@pytest.mark.parametrize("levels", [[0], (1, 2, 3, 3, 2), [0, 1, 0, 1, 2]])
def test_a_path_through_the_levels_is_taken(levels):
    assert check_levels(levels) == tuple(levels)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([], "one level per cell, .*; got"),
        (2, "one level per cell, .*; got 2"),
        ([0] * 101, "for 100 cells at most; got .*, ...].$"),
        ([2], r"cell 0 is at one of \[0, 1\]; got 2"),
        ([0, 1, 3], r"cell 2 is at one of \[0, 1, 2\]; got 3"),
        ([1, 2, 3, 4], r"cell 3 is at one of \[2, 3\]; got 4"),
        ([0, -1], r"cell 1 is at one of \[0, 1\]; got -1"),
        ([0, 0.5], r"cell 1 is at one of \[0, 1\]; got 0.5"),
    ],
)
def test_a_path_that_jumps_or_leaves_the_levels_is_refused(levels, words):
    with pytest.raises(dl.InputError, match=f"^nas_levels.*{words}"):
        check_levels(levels)
