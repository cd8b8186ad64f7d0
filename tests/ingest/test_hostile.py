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
OBEY_PERMISSIONS = """
import ctypes, os, sys
if os.geteuid() == 0:
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        assert libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Takes root's right to read what its permissions forbid from the program that comes next."""


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities as Linux has them")
def test_hostile_files_are_refused_by_name_and_the_good_ones_found(tmp_path):
    folder, made = tmp_path / "files", tmp_path / "c"
    expected = hostile.make(folder)
    arguments = ["index", str(folder), "-c", str(made), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", OBEY_PERMISSIONS, "-m", "app", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)

    good = {name for name, kind in expected.items() if kind == hostile.OK}
    unreadable = {name for name in good if Path(name).stem == "unreadable"}
    good -= unreadable
    bad = {n: kind for n, kind in expected.items() if kind not in (hostile.OK, hostile.SKIP)}
    assert len(good) + len(bad) >= 30 and unreadable

    def uris(names):
        return {uri_of(os.path.join(os.path.realpath(folder), name)) for name in names}

    collection = retrieval.open(made)
    records = collection.store.records(collection.store.ids())
    failures = {row["uri"]: row for row in collection.store.failures().to_pylist()}
    assert {record.uri for record in records} == uris(good)
    assert set(failures) == uris(bad) | uris(unreadable)
    assert counts["added"] == len(good) and counts["failed"] == len(failures)
    for name, kind in bad.items():
        failure = failures[uri_of(os.path.join(os.path.realpath(folder), name))]
        assert (failure["stage"], failure["kind"]) == ("decode", kind), name
        assert len(failure["reason"]) > 10
    for uri in uris(unreadable):
        assert failures[uri]["stage"] == "read" and "denied" in failures[uri]["reason"]
    for record in records:
        path = path_of(record.uri)
        assert path is not None and os.path.exists(path)
        assert collection.search(image=path, k=3)[0].score == pytest.approx(1.0, abs=1e-4)
