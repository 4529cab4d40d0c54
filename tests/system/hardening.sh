#!/bin/bash
# The units as they are shipped: correct, exposing little, and no program that the service writes can be executed.
. "$(dirname "$0")/lib.sh"
install_forkd

# the manual pages that the units name are in the package
for unit in forkd.service forkd.socket forkd@a.service forkd@a.socket; do
    exits "systemd-analyze verify $unit" 0 systemd-analyze verify --man=no "$unit"
    is "what it says" "" "$output"
done

# exposure UNIT: as docs/SYSTEMD.md has it
exposure() { systemd-analyze security --no-pager "$1" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p'; }

# documented FILE: the exposure that the first table of docs/SYSTEMD.md says this file or these words lead to
documented() { grep -m 1 -F "$1" /test/SYSTEMD.md | awk -F ' *[|] *' '{ print $4 }'; }

is "exposure of forkd.service" "$(documented '[Install](#install)')" "$(exposure forkd.service)"
is "exposure of forkd@a.service" "$(documented '[An instance](#an-instance)')" "$(exposure forkd@a.service)"
for example in /usr/share/doc/forkd/examples/*.conf; do
    unit=forkd@${example##*/}
    unit=${unit%.conf}.service
    grep -q '^\[Service\]' "$example" || continue # sockets have no exposure
    install -D -m 644 "$example" "/etc/systemd/system/$unit.d/example.conf"
    systemctl daemon-reload
    is "exposure with ${example##*/}" "$(documented "\`${example##*/}\`")" "$(exposure "$unit")"
done

# what the service may do, and beside it to run the probe
configure forkd <<'END'
[[listen]]
endpoints = ["systemd:echo"]
END
cp /etc/forkd/forkd.toml /etc/forkd/a.toml
case $(uname -m) in
x86_64) memfd_create=319 ;;
*) memfd_create=279 ;; # of all that have the generic numbers
esac
libraries=$(ldd /usr/bin/perl | grep -o '/[^ ]*' | tr '\n' ' ')
systemctl start forkd.socket forkd@a.socket
for unit in forkd.service forkd@a.service; do
    directory=/run/${unit%.service}
    directory=${directory/@/-}
    drop_in "$unit" <<END
[Service]
ExecStartPre=/usr/bin/perl /test/probe.pl
Environment=MEMFD_CREATE=$memfd_create
# as docs/SYSTEMD.md says for files that shall stay
StateDirectory=forkd
NoExecPaths=-/var/lib/forkd
ExecPaths=/usr/bin/perl $libraries
END
    exits "$unit starts with the probe" 0 systemctl start "$unit"
    said=$(journal "$unit")
    is "what it has executed" "" "$(grep EXECUTED <<<"$said" || true)"
    for place in /tmp /var/tmp /dev/shm /var/lib/private/forkd "$directory"; do
        matches "the probe can write to $place" $'\n'"$place: written" $'\n'"$said"
    done
    matches "it can't write to memory" 'memory: not written: Operation not permitted' "$said"
    matches "it has tried all" 'all tried' "$said"
done
