#!/bin/sh
# `make bench`: installs what the benchmark needs (as root, on Debian or Ubuntu), then runs it.
set -eu
cd "$(dirname "$0")"
./setup.sh
exec ./run.py "$@"
