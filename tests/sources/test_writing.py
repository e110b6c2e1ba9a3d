"""Several files written together: all of them, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.errors import StateError
from policyd.sources.writing import write_together


def content(folder: Path) -> dict[str, str]:
    """Every file that is there."""
    return {str(one.relative_to(folder)): one.read_text() for one in sorted(folder.rglob("*")) if one.is_file()}


def test_files_are_made_replaced_and_removed(tmp_path: Path) -> None:
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "a.yaml").write_text("old")
    (tmp_path / "mesh" / "a.yaml").chmod(0o640)
    (tmp_path / "mesh" / "b.yaml").write_text("old")

    write_together(tmp_path, {"mesh/a.yaml": "new", "mesh/b.yaml": None, "more/c.yaml": "é"})

    assert content(tmp_path) == {"mesh/a.yaml": "new", "more/c.yaml": "é"}
    assert (tmp_path / "mesh" / "a.yaml").stat().st_mode & 0o777 == 0o640


def test_what_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "mesh" / "b.yaml").mkdir(parents=True)  # a folder, which no file replaces
    (tmp_path / "mesh" / "a.yaml").write_text("old")

    with pytest.raises(StateError) as refused:
        write_together(tmp_path, {"mesh/a.yaml": "new", "mesh/c.yaml": "new", "mesh/b.yaml": "new"})

    assert "cannot be written" in str(refused.value)
    assert content(tmp_path) == {"mesh/a.yaml": "old"}
