"""The main job with the collection in a bucket, from Python and from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import retrieval
from indexers import ingest
from tests.encoders_of_tests import ColourEncoder
from tests.pictures import write_pictures

ROOT = Path(__file__).resolve().parents[2]
URI = "s3://bucket/main job/c.lance"


def test_index_and_search_in_a_bucket(bucket, tmp_path):
    photos = write_pictures(tmp_path / "photos", 12)
    encoders = [ColourEncoder()]
    made = retrieval.open(URI, create=True, encoders=encoders, storage_options=bucket)
    assert ingest(tmp_path / "photos", made, workers=2).added == 12
    assert ingest(tmp_path / "photos", made).skipped == 12
    reader = retrieval.open(URI, encoders=encoders, storage_options=bucket)
    best = reader.search(image=photos[5])[0]
    assert best.image.uri == str(photos[5])

    environment = {
        "AWS_ENDPOINT": bucket["endpoint"],
        "AWS_REGION": bucket["region"],
        "AWS_ACCESS_KEY_ID": bucket["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": bucket["secret_access_key"],
        "AWS_ALLOW_HTTP": "true",
    }
    command = [sys.executable, "-m", "app", "search", "-c", URI, "--json", "--id"]
    done = subprocess.run(
        [*command, str(best.image.image_id)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hits"][0]["uri"] == str(photos[5])
