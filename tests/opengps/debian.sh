#!/bin/sh
# Install what the tests of the website need besides Python, from Debian.
set -eu
packages=""
need() { # a program, and the package that contains it
    command -v "$1" >/dev/null || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1 || packages="$packages $2"
}
need postgres postgresql
need systemd-analyze systemd
need chromium chromium
need curl curl
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests of the website need:$packages. Install these first." >&2
    exit 1
fi
echo "Installing$packages"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086
apt-get -qq install --no-install-recommends -y $packages >/dev/null
