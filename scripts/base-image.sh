#!/usr/bin/env bash
# Builds a base for user-image/Dockerfile from Debian's packages, where no registry can be reached, and prints its name.
#
# usage: scripts/base-image.sh
#
# It has the packages of user-image/packages.txt already, so that the Dockerfile then needs no network. The packages come from where this
# machine's apt gets Debian from, with its proxy, keys and passwords; none of these is left in the image.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$repo/scripts/engine.sh"

# The release that the Dockerfile names too.
suite=bookworm
image=innkeeper/base:$suite
inputs=$(hash_of user-image/packages.txt scripts/base-image.sh)

if [ "$(docker image inspect --format '{{index .Config.Labels "innkeeper.inputs"}}' "$image" 2>/dev/null)" = "$inputs" ]; then
    echo "$image"
    exit
fi

is_root || die "building $image needs root; run: sudo scripts/base-image.sh"
need mmdebstrap=mmdebstrap
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || install_packages debian-archive-keyring

# apt reads the keys as a user of its own.
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

# Where this machine gets the suite from, as apt itself has understood its configuration. Nothing, where it is not Debian.
# shellcheck disable=SC2016 # apt fills these in
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(SOURCESENTRY)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    awk -v suite="$suite" '$2 ~ "^" suite' >"$work/targets" || true
awk '{ print "deb", $1, $2, $3 }' "$work/targets" | sort -u >"$work/sources.list"
if [ ! -s "$work/sources.list" ]; then
    cat >"$work/sources.list" <<END
deb http://deb.debian.org/debian $suite main
deb http://deb.debian.org/debian $suite-updates main
deb http://deb.debian.org/debian-security $suite-security main
END
fi

# Debian's keys, and those that this machine trusts for its own sources.
mkdir "$work/keys"
{
    echo /usr/share/keyrings/debian-archive-keyring.gpg
    find /etc/apt/trusted.gpg.d -type f 2>/dev/null || true
    awk '{ sub(/:[0-9]+$/, "", $4); print $4 }' "$work/targets" | sort -u |
        xargs -r grep -hoiE 'signed-by[:=] *(/[^] ]+)' | grep -oE '/.*' || true
} | sort -u | xargs -r cp -t "$work/keys" --

# How this machine's apt fetches (proxies, certificates, timeouts), and where its passwords are; and images that stay small.
{
    apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|Check-|ForceIPv|AllowInsecure|AllowWeak|SendAcceptEncoding)' || true
    echo 'Dir::Etc::netrc "/etc/apt/auth.conf";'
    echo 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d/";'
    echo 'Acquire::Languages "none";'
} >"$work/apt.conf"

cat >"$work/dpkg.cfg" <<END
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
force-unsafe-io
END

# What made it stays here: the image gets Debian's own addresses.
cat >"$work/customize" <<END
#!/bin/sh
set -eu
rm -f "\$1/etc/apt/sources.list" "\$1/etc/apt/sources.list.d/"* "\$1/etc/apt/apt.conf.d/99mmdebstrap"
cat >"\$1/etc/apt/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: http://deb.debian.org/debian
Suites: $suite $suite-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: $suite-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
: >"\$1/etc/hostname"
rm -f "\$1/etc/resolv.conf" "\$1/var/cache/debconf/"*-old "\$1/var/lib/dpkg/"*-old "\$1/var/log/dpkg.log" "\$1/var/log/alternatives.log"
rm -rf "\$1/var/log/apt"
END
chmod +x "$work/customize"

say "building $image from Debian's packages (about a minute)"
include=$(sed 's/#.*//' "$repo/user-image/packages.txt" | xargs | tr ' ' ',')
id=$(mmdebstrap --quiet --variant=minbase --format=tar \
    --include="$include" \
    --keyring="$work/keys" --aptopt="$work/apt.conf" --dpkgopt="$work/dpkg.cfg" --customize-hook="$work/customize" \
    "$suite" - "$work/sources.list" 2>"$work/log" |
    docker import --change 'CMD ["bash"]' --change "LABEL innkeeper.inputs=$inputs" -) || {
    # An archive cut short may have been imported all the same.
    [ -z "$id" ] || docker image rm "$id" >/dev/null 2>&1 || true
    tail -n 20 "$work/log" >&2
    die "mmdebstrap could not build $image: its last lines are above"
}
replace_image "$id" "$image"
echo "$image"
