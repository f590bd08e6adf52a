"""A weights file that can't be read is named, whatever is wrong with it."""

import numpy as np
import pytest

from deeplab_tf.errors import InputError
from deeplab_tf.models.weights import read_variables


# Offsets in the directory at the end of the archive: method, version and flags of its first entry.
@pytest.mark.parametrize(("offset", "value"), [(10, 99), (6, 255), (8, 1)])
def test_an_archive_of_a_kind_that_python_cannot_read_is_named(tmp_path, offset, value):
    path = tmp_path / "weights.npz"
    np.savez(path, kernel=np.ones((3, 3)))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.npz isn't a whole weights file"):
        read_variables(path)
