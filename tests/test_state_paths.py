"""A mesh's folder is found, and where its state and sockets lie is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.environment import Environment
from policyd.errors import StateError, UsageError
from policyd.state_paths import find_directory, instance_name, runtime_directory, state_paths


def test_the_folder_is_the_option_then_the_variable_then_the_nearest_with_state(tmp_path: Path) -> None:
    for name in ("option", "variable", "near/.policyd", "near/deep/deeper"):
        (tmp_path / name).mkdir(parents=True)
    deep = tmp_path / "near" / "deep" / "deeper"
    environment = Environment(directory=str(tmp_path / "variable"))
    assert find_directory(str(tmp_path / "option"), environment, deep) == tmp_path / "option"
    assert find_directory(None, environment, deep) == tmp_path / "variable"
    assert find_directory(None, Environment(), deep) == tmp_path / "near"
    assert find_directory("..", Environment(), deep) == tmp_path / "near" / "deep"


def test_no_folder_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        find_directory(None, Environment(), tmp_path)
    assert str(error.value) == (
        f"no folder with `workloads.yaml` from `{tmp_path}` upwards; name it with `--dir`, or run the command inside it"
    )
    with pytest.raises(UsageError) as error:
        find_directory("nowhere", Environment(), tmp_path)
    assert str(error.value) == "`nowhere` is no folder; name an existing one"
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UsageError) as error:
        find_directory("circle", Environment(), tmp_path)
    assert str(error.value) == "`circle` is no folder; name an existing one"


def test_state_lies_in_the_folder() -> None:
    paths = state_paths(Path("/srv/mesh"))
    assert [str(path.relative_to("/srv/mesh/.policyd")) for path in (
        paths.format, paths.ca, paths.tokens, paths.journal, paths.placement, paths.server, paths.lock
    )] == ["format", "ca", "tokens.db", "journal", "placement.json", "server.json", "lock"]  # fmt: skip


def test_sockets_lie_in_the_runtime_folder_or_in_the_users_own_temporary_one() -> None:
    directory = Path("/srv/mesh")
    name = instance_name(directory)
    assert len(name) == 12
    runtime = Environment(runtime=Path("/run/user/1000"))
    assert runtime_directory(directory, runtime, 1000) == Path("/run/user/1000/policyd") / name
    assert runtime_directory(directory, Environment(), 1000) == Path("/tmp/policyd-1000") / name


def test_two_folders_have_two_names() -> None:
    assert instance_name(Path("/srv/a")) != instance_name(Path("/srv/b"))
    assert instance_name(Path("/srv/a/../a")) == instance_name(Path("/srv/a"))


def test_a_runtime_folder_too_long_for_sockets_is_refused() -> None:
    environment = Environment(runtime=Path("/" + "x" * 60))
    with pytest.raises(StateError, match="set XDG_RUNTIME_DIR to a shorter path"):
        runtime_directory(Path("/srv/mesh"), environment, 1000)
