"""Files of the cache under many hands, and the digests of weights."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retrieval.encoders.digests import weights_hash
from retrieval.encoders.files import STALE_AFTER_S, put
from retrieval.errors import EncoderError
from tests.encoders.hub_server import git_sha1

SIZE = 1 << 20
# Writes one of the 256 contents that count as whole, again and again.
WRITER = """
import sys
from pathlib import Path
from retrieval.encoders.files import put
for turn in range(int(sys.argv[3])):
    put(Path(sys.argv[1]), bytes([int(sys.argv[2]) * 40 + turn % 40]) * int(sys.argv[4]))
"""


def writer(path: Path, who: int, turns: int, size: int) -> subprocess.Popen[bytes]:
    arguments = [str(path), str(who), str(turns), str(size)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments])


def test_put_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    put(path, b"old")
    put(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_put_respects_the_umask(tmp_path):
    """A cache that several people share must stay readable for them."""
    before = os.umask(0o027)
    try:
        put(tmp_path / "file", b"text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_put_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        put(tmp_path / "folder", b"text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_readers_never_see_a_part_while_six_processes_write(tmp_path):
    path = tmp_path / "file"
    put(path, bytes(SIZE))
    writers = [writer(path, who, 60, SIZE) for who in range(6)]
    seen = set()
    try:
        while any(process.poll() is None for process in writers):
            content = path.read_bytes()
            assert len(content) == SIZE
            assert content == content[:1] * SIZE
            seen.add(content[0])
    finally:
        for process in writers:
            process.kill()
            process.wait()
    assert [process.returncode for process in writers] == [0] * 6
    assert len(seen) > 1, "nothing was replaced under the reader"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_put_shows_nothing_and_is_cleared_away(tmp_path):
    path = tmp_path / "file"
    put(path, b"whole")
    killed = writer(path, 1, 1, 300_000_000)
    try:
        while not (left := list(tmp_path.glob(".*.part"))) and killed.poll() is None:
            time.sleep(0.0005)
    finally:
        killed.kill()
        killed.wait()
    assert left, "it was not killed in the middle"
    assert path.read_bytes() == b"whole"
    [left] = tmp_path.glob(".*.part")
    put(path, b"another")
    assert left.exists(), "it may have been a process at work"
    old = time.time() - STALE_AFTER_S - 60
    os.utime(left, (old, old))
    put(tmp_path / "neighbour", b"text")
    assert not left.exists()
    assert path.read_bytes() == b"another"


def blob_of(cache: Path, name: str, content: bytes) -> tuple[Path, Path]:
    """A file as the hub's client keeps it, and the link in the snapshot that leads there."""
    blob = cache / "models--org--name" / "blobs" / name
    link = cache / "models--org--name" / "snapshots" / ("0" * 40) / "onnx" / "model.onnx"
    for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return blob, link


def test_weights_hash_is_remembered_until_the_file_changes(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"first")
    os.utime(weights, ns=(1, 10**18))
    first = weights_hash([weights], tmp_path / "cache")
    assert first == hashlib.blake2b(b"first", digest_size=16).hexdigest()
    weights.write_bytes(b"other")
    os.utime(weights, ns=(1, 10**18))
    assert weights_hash([weights], tmp_path / "cache") == first
    os.utime(weights, ns=(1, 2 * 10**18))
    assert weights_hash([weights], tmp_path / "cache") != first


def test_weights_hash_of_several_files_depends_on_all(tmp_path):
    files = [tmp_path / name for name in ("a", "b")]
    for path in files:
        path.write_bytes(b"same")
    whole = weights_hash(files, tmp_path / "cache")
    assert whole != weights_hash(files[:1], tmp_path / "cache")
    files[1].write_bytes(b"another")
    assert weights_hash(files, tmp_path / "cache") != whole


@pytest.mark.parametrize("name_of", [lambda c: hashlib.sha256(c).hexdigest(), git_sha1])
def test_a_download_that_does_not_fit_its_checksum_is_removed(tmp_path, name_of):
    good = b"what the hub has"
    blob, link = blob_of(tmp_path, name_of(good), b"what arrived")
    with pytest.raises(EncoderError, match=r"damaged.*load the encoder again"):
        weights_hash([link], tmp_path / "cache")
    assert not blob.exists()
    blob.write_bytes(good)
    expected = hashlib.blake2b(good, digest_size=16).hexdigest()
    assert weights_hash([link], tmp_path / "cache") == expected


def test_a_store_that_names_files_by_another_hash_is_no_damage(tmp_path):
    """Newer clients make blobs/SHA256 a link into one store for all repositories."""
    content = b"what the hub has"
    blob, link = blob_of(tmp_path, hashlib.sha256(content).hexdigest(), content)
    stored = tmp_path / "blobs" / "aa" / ("a" * 64)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(os.path.relpath(stored, blob.parent))
    assert len(weights_hash([link], tmp_path / "cache")) == 32
    os.chmod(stored, 0o600)
    stored.write_bytes(b"what has rotted")
    with pytest.raises(EncoderError, match="damaged"):
        weights_hash([link], tmp_path / "cache")
    assert stored.exists(), "other repositories may use it"
    assert not blob.is_symlink()


def test_a_file_of_the_user_s_own_is_never_removed(tmp_path):
    path = tmp_path / "blobs" / hashlib.sha256(b"something").hexdigest()
    path.parent.mkdir()
    path.write_bytes(b"something else")
    assert len(weights_hash([path], tmp_path / "cache")) == 32
    assert path.exists()


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, caplog):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"first")
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    digest = weights_hash([weights], tmp_path / "cache")
    assert digest == hashlib.blake2b(b"first", digest_size=16).hexdigest()
    assert "cannot remember the digest" in caplog.text


def test_what_is_remembered_is_not_believed_when_damaged(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"first")
    first = weights_hash([weights], tmp_path / "cache")
    [note] = (tmp_path / "cache" / "digests").iterdir()
    note.write_bytes(b"")
    assert weights_hash([weights], tmp_path / "cache") == first
    note.write_bytes(b"\xff\xfe")
    assert weights_hash([weights], tmp_path / "cache") == first
