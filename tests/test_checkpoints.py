"""Checkpoints are whole or not there; damaged ones are named and passed over."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain import checkpoints
from selftrain.checkpoints import checkpoint_name, load_latest, prune, save, verify_checkpoint
from selftrain.errors import CheckpointError, StorageError


def writes(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights").write_bytes(content)
        (folder / "guard.json").write_bytes(b"{}")

    return write


def save_step(folder: Path, step: int) -> Path:
    return save(folder, checkpoint_name(step), writes(b"w" * step), {"step": step, "ledger_head": f"{step:064x}", "loss": float("nan")})


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nowhere") is None
    path = save_step(tmp_path, 20)
    assert path == tmp_path / "step-000020"
    found = load_latest(tmp_path)
    assert found is not None
    assert (found.name, found.path, found.refused) == ("step-000020", path, ())
    assert (found.state["step"], found.state["ledger_head"]) == (20, f"{20:064x}")
    assert found.state["loss"] != found.state["loss"]
    assert (found.path / "policy" / "weights").read_bytes() == b"w" * 20


def test_the_newest_is_by_number_and_not_by_text(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 3):
        save_step(tmp_path, step)
    found = load_latest(tmp_path)
    assert found is not None
    assert found.name == "step-1000000"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: flip(path / "policy" / "weights"), "policy/weights is not what was written"),
        (lambda path: cut(path / "policy" / "weights"), "policy/weights has 29 bytes instead of 30"),
        (lambda path: (path / "guard.json").unlink(), "guard.json is missing"),
        (lambda path: (path / "extra").write_bytes(b""), "extra does not belong to it"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda path: cut(path / "manifest.json") or cut(path / "manifest.json"), "manifest.json is not JSON"),
        (lambda path: (path / "manifest.json").write_text((path / "manifest.json").read_text().replace(f"{30:x}", f"{31:x}")), "its checksum differs"),
        (lambda path: (path / "manifest.json").write_text("[]"), "does not have the fields"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path: Path, damage: Callable[[Path], object], reason: str) -> None:
    for step in (10, 20, 30):
        save_step(tmp_path, step)
    damage(tmp_path / "step-000030")
    found = load_latest(tmp_path)
    assert found is not None
    assert found.name == "step-000020"
    assert [item.name for item in found.refused] == ["step-000030"]
    assert reason in found.refused[0].reason
    with pytest.raises(CheckpointError, match="step-000030"):
        verify_checkpoint(tmp_path / "step-000030")


def test_none_left_is_an_error(tmp_path: Path) -> None:
    for step in (10, 20):
        flip(save_step(tmp_path, step) / "manifest.json")
    with pytest.raises(CheckpointError, match=r"step-000020.*step-000010"):
        load_latest(tmp_path)


def test_one_under_another_name_is_refused(tmp_path: Path) -> None:
    save_step(tmp_path, 10).rename(tmp_path / "step-000050")
    with pytest.raises(CheckpointError, match="step-000010 under another name"):
        verify_checkpoint(tmp_path / "step-000050")


def test_prune_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in range(1, 7):
        save_step(tmp_path, step)
    assert prune(tmp_path, 2, {"step-000001"}) == ["step-000002", "step-000003", "step-000004"]
    assert sorted(os.listdir(tmp_path)) == ["step-000001", "step-000005", "step-000006"]
    assert prune(tmp_path, 0, set()) == ["step-000001", "step-000005"]


def test_saving_again_keeps_equal_content_and_replaces_the_rest(tmp_path: Path) -> None:
    path = save_step(tmp_path, 10)
    before = path.stat().st_ino
    save_step(tmp_path, 10)
    assert path.stat().st_ino == before
    flip(path / "policy" / "weights")
    save_step(tmp_path, 10)
    assert verify_checkpoint(path).state["step"] == 10
    save(tmp_path, path.name, writes(b"other"), {"step": 10})
    assert (path / "policy" / "weights").read_bytes() == b"other"
    assert os.listdir(tmp_path) == [path.name]


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs."""


def test_killed_anywhere_a_whole_checkpoint_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replacing step 10, killed before each of its renames, leaves the old or the new content, and the next save cleans up."""
    real = Path.rename
    for killed_at in range(3):
        folder = tmp_path / str(killed_at)
        save(folder, "step-000010", writes(b"old"), {})
        calls = iter(range(9))

        def rename(path: Path, target: Path, calls: object = calls, killed_at: int = killed_at) -> Path:
            if next(calls) == killed_at:  # type: ignore[call-overload]
                raise Killed
            return real(path, target)

        monkeypatch.setattr(Path, "rename", rename)
        monkeypatch.setattr(checkpoints, "_delete", lambda folder: None)  # a killed process cleans nothing up
        if killed_at < 2:
            with pytest.raises(Killed):
                save(folder, "step-000010", writes(b"new"), {})
        else:
            save(folder, "step-000010", writes(b"new"), {})
        monkeypatch.undo()
        found = load_latest(folder)
        assert found is not None
        assert (found.path / "policy" / "weights").read_bytes() == (b"old" if killed_at < 2 else b"new")
        save_step(folder, 20)
        assert sorted(os.listdir(folder)) == ["step-000010", "step-000020"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)"), OSError(errno.EROFS, "read-only")],
)
def test_a_full_disk_is_said_and_leaves_the_rest(tmp_path: Path, error: Exception) -> None:
    save_step(tmp_path, 10)
    before = tree(tmp_path)

    def fails(folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise error

    with pytest.raises(StorageError, match=r"disk is (full|read-only)"):
        save(tmp_path, "step-000020", fails, {})
    assert tree(tmp_path) == before


def test_a_writer_that_breaks_is_not_called_a_full_disk(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        save(tmp_path, "step-000020", fails, {})
    with pytest.raises(CheckpointError, match=r"made a file manifest\.json"):
        save(tmp_path, "step-000020", lambda folder: (folder / "manifest.json").touch(), {})
    with pytest.raises(CheckpointError, match="lower-case"):
        save(tmp_path, "../x", writes(b""), {})
    assert os.listdir(tmp_path) == []


def test_the_disk_fills_up_for_real(tmp_path: Path) -> None:
    """The system's limit of a file's size stands for the disk."""
    import subprocess
    import sys

    program = f"""
import resource
from pathlib import Path
from selftrain.checkpoints import save, load_latest
from selftrain.errors import StorageError
folder = Path({str(tmp_path)!r})
def write(size): return lambda into: (into / "weights").write_bytes(bytes(size))
save(folder, "step-000001", write(1000), {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save(folder, "step-000002", write(100_000), {{}})
except StorageError as error:
    assert "larger than the system allows" in error.why, error
else:
    raise SystemExit("not refused")
assert load_latest(folder).name == "step-000001"
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert os.listdir(tmp_path) == ["step-000001"]
