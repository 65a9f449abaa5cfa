#!/bin/sh
# What the benchmark needs: Debian's packages, which it installs as root and names otherwise, and those of
# requirements.txt in .venv beside this file. Does nothing when it is all there.
set -eu
cd "$(dirname "$0")"

missing=""
for package in wrk nginx libnginx-mod-http-lua lua-cjson haproxy valgrind python3 python3-venv; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "The benchmark needs these Debian packages: apt-get install$missing" >&2
        exit 1
    fi
    apt-get update -q >&2
    # The servers are wanted as programs, not as services: policy-rc.d 101 keeps the installer from starting them.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    # shellcheck disable=SC2086 # one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >&2
fi

wanted="$(sha256sum < requirements.txt)"
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
    echo "$wanted" > .venv/.stamp
fi
