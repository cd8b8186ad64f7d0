"""A folder of hostile files is indexed without a crash, and every refusal is told by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import retrieval
from retrieval.uris import path_of, uri_of
from tests import hostile

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.mark.parametrize("as_root", [True, False])
def test_hostile_files_are_refused_by_name_and_the_good_ones_found(tmp_path_factory, as_root):
    if os.geteuid() != 0 and as_root:
        pytest.skip("runs once, as the unprivileged user that it is")
    base = tmp_path_factory.mktemp("hostile")
    folder = base / "files"
    expected = hostile.make(folder)
    command = [sys.executable, "-m", "app", "index", str(folder), "-c", str(base / "c"), "--json"]
    options = {}
    if os.geteuid() == 0 and not as_root:
        os.chown(base, NOBODY, NOBODY)
        for each in [base, *base.parents]:
            if each.stat().st_mode & 0o005 != 0o005:
                each.chmod(each.stat().st_mode | 0o055)
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    cache = base / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    env = {**os.environ, "RETRIEVAL_CACHE": str(cache), "HOME": str(base)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=300, **options
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)

    readable_by_all = as_root and os.geteuid() == 0
    good = {
        n
        for n, kind in expected.items()
        if kind == "ok" or (kind == "unreadable" and readable_by_all)
    }
    bad = {n: kind for n, kind in expected.items() if kind not in ("ok", "skip") and n not in good}
    collection = retrieval.open(base / "c")
    failures = {row["uri"]: row for row in collection.store.failures().to_pylist()}
    indexed = {record.uri for record in collection.store.records(collection.store.ids())}

    def uris(names):
        return {uri_of(os.path.join(os.path.realpath(folder), name)) for name in names}

    assert uris(good) == indexed
    assert uris(bad) == set(failures)
    assert counts["added"] == len(good) and counts["failed"] == len(bad)
    for name, kind in bad.items():
        failure = failures[uri_of(os.path.join(os.path.realpath(folder), name))]
        assert failure["reason"]
        if kind == "unreadable":
            assert failure["stage"] == "read" and "ermission" in failure["reason"]
        else:
            assert (failure["stage"], failure["kind"]) == ("decode", kind), name
    for record in collection.store.records(collection.store.ids()):
        path = path_of(record.uri)
        assert path is not None and os.path.exists(path)
        assert collection.search(image=path, k=3)[0].score == pytest.approx(1.0, abs=1e-4)
