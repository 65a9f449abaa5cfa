#!/bin/sh
# Installs what the tests need beyond Rust, and does nothing when it is all there.
#
# System packages come from apt (Debian or Ubuntu, as root). Python packages go to .venv/, which also holds the Node
# and Go toolchains (both are published on PyPI, so their versions are pinned like any other package's). npm packages
# go to tests/node_modules/. Without root, every missing system package is named and the script fails: a test that
# cannot run is a failure, never a skip.
set -eu
cd "$(dirname "$0")/.."

# command:package
wanted="cc:gcc make:make curl:curl openssl:openssl h2load:nghttp2-client chromium:chromium xmllint:libxml2-utils python3:python3 unshare:util-linux mount:mount"

missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "tests/setup.sh: these packages are missing:$missing" >&2
        echo "tests/setup.sh: run it as root on Debian or Ubuntu, or install them and run it again" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # one word a package
    apt-get install -y -qq --no-install-recommends $missing
fi

# Runs the rest of its arguments unless DIR/.stamp says that they ran for the same lists.
once() {
    dir=$1 lists=$2
    shift 2
    # shellcheck disable=SC2086 # one word a file
    stamp="$(cat $lists | sha256sum)"
    if [ "$(cat "$dir/.stamp" 2>/dev/null)" != "$stamp" ]; then
        "$@"
        echo "$stamp" >"$dir/.stamp"
    fi
}

python_packages() {
    python3 -m venv --clear .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
}

npm_packages() {
    # playwright-core drives the system's Chromium; nothing here may fetch a browser of its own.
    (cd tests && PATH="$PWD/../.venv/bin:$PATH" PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --silent)
}

once .venv tests/requirements.txt python_packages
once tests/node_modules "tests/package.json tests/package-lock.json" npm_packages
