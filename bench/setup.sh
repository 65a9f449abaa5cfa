#!/bin/sh
# The Debian packages that the benchmark needs: installs them as root, names what is missing otherwise.
set -eu

missing=""
for package in wrk nginx libnginx-mod-http-lua lua-cjson valgrind python3; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "The benchmark needs these Debian packages: apt-get install$missing" >&2
    exit 1
fi
apt-get update -q >&2
# nginx is wanted as a program, not as a service: policy-rc.d 101 keeps the installer from starting it.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >&2
