"""What clusterofone asks of every reader, asked of this one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cluster.dataserver.readers.conformance import Array, Format, ReaderConformance, camera_frames
from cluster.dataserver.readers.registry import is_series_name, open_series
from cluster.errors import Invalid


def write_lumen(folder: Path, stack: Array) -> Path:
    path = folder / "cell.lmn"
    kind = ["uint8", "uint16", "float32"].index(stack.dtype.name)
    head = struct.pack(
        "<4sHHHHIff40x", b"LUMN", 1, stack.shape[2], stack.shape[1], kind, len(stack), 20.0, 108.0
    )
    with path.open("wb") as file:
        file.write(head)
        for number, frame in enumerate(stack):
            file.write(struct.pack("<Q d", number, 0.02 * number) + frame.tobytes())
    return path


class TestLumen(ReaderConformance):
    @pytest.fixture
    def kind(self) -> Format:
        return Format("lumen", write_lumen)


def test_its_metadata_are_in_pymes_keys(tmp_path: Path) -> None:
    reader = open_series(write_lumen(tmp_path, camera_frames()))
    reader.close()

    said = {key: round(entry.value, 6) for key, entry in reader.shape.metadata.items()}
    assert said == {"voxelsize.x": 0.108, "voxelsize.y": 0.108, "Camera.IntegrationTime": 0.02}


def test_the_suffix_is_listed_as_a_series() -> None:
    assert is_series_name("cell.lmn")


def test_what_is_no_lumen_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cell.lmn"
    path.write_bytes(b"nothing of the kind" * 10)

    with pytest.raises(Invalid, match=r"cell\.lmn is not a Lumen file"):
        open_series(path)
