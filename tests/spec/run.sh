#!/bin/sh
# Checks openapi.yaml: two linters read it, then schemathesis holds a live server to it.
#
# schemathesis makes requests from the description, right ones and wrong ones, and compares every answer with what the
# description promises. Its seed is fixed, so that a run can be repeated.
set -eu
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true

tests/node_modules/.bin/redocly lint --config tests/spec/redocly.yaml openapi.yaml
tests/node_modules/.bin/spectral lint --ruleset tests/spec/spectral.yaml --fail-severity=hint openapi.yaml

# The open API is limited for each client address: one address sends all of these requests.
python tests/live.py --plan mega \
    --set POLYGATE_OPEN__REQUESTS_A_MINUTE=1000000 --set POLYGATE_OPEN__BURST=1000000 -- \
    sh -c 'schemathesis --config-file tests/spec/schemathesis.toml run openapi.yaml --url "$LIVE_URL"'
