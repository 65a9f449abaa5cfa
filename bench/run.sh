#!/bin/sh
# `make bench`: installs what the benchmark needs (as root, on Debian or Ubuntu), then measures: the built-in service, and
# the gateway beside others. Both take the same options; those of one alone go to run.py or gateway.py itself.
set -eu
cd "$(dirname "$0")"
./setup.sh
.venv/bin/python run.py "$@"
exec .venv/bin/python gateway.py "$@"
