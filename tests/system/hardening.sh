#!/bin/bash
# The units as they are shipped: correct, and exposing little.
. "$(dirname "$0")/lib.sh"
install_forkd

# the manual pages that the units name are in the package
for unit in forkd.service forkd.socket forkd@a.service forkd@a.socket; do
    exits "systemd-analyze verify $unit" 0 systemd-analyze verify --man=no "$unit"
    is "what it says" "" "$output"
done

# exposes UNIT TENTHS: the exposure is at most so many tenths
exposes() {
    exits "exposure of $1, in tenths at most $2" 0 \
        systemd-analyze security --offline=yes --no-pager --threshold="$2" "$1"
    tail -n 1 <<<"$output"
}

exposes forkd.service 4
exposes forkd@a.service 4
install -D -m 644 /test/systemd/bind.conf /etc/systemd/system/forkd@own.service.d/bind.conf
exposes forkd@own.service 14
