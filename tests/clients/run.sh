#!/bin/sh
# Runs real clients against a live server: the published examples and a browser.
set -eu
cd "$(dirname "$0")/../.."
exec .venv/bin/python tests/clients/examples.py
