#!/bin/sh
# Runs real clients against a live server: the published examples, a browser, and clients of both versions of HTTP.
set -eu
cd "$(dirname "$0")/../.."
.venv/bin/python tests/clients/examples.py
python3 tests/clients/versions.py
python3 tests/clients/upstream.py
