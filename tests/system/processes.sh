#!/bin/bash
# How many processes the service has: 1 + connections (fork), 1 + workers (prefork).
. "$(dirname "$0")/lib.sh"
install_forkd

clients=()

# Holds a client of each kind over IPv4 and IPv6.
hold_six() {
    local program
    for program in nc ncat socat; do
        hold "$program-4" "$program" 127.0.0.1 7
        hold "$program-6" "$program" ::1 7
        clients+=("$program-4" "$program-6")
    done
}

release_all() {
    release "${clients[@]}"
    clients=()
}

has_single_threads() {
    is "threads of each process" 1 "$(ps -o nlwp= -p "$(pids forkd.service | paste -sd,)" | tr -d ' ' | sort -u)"
}

configure forkd <<'END'
[[listen]]
endpoints = ["systemd:echo"]
model = "fork"
END
exits "systemctl start" 0 systemctl start forkd.service
counts forkd.service 1
hold_six
counts forkd.service 7
echoes udp 127.0.0.1 7
echoes udp ::1 7
counts forkd.service 7 # the children of datagrams have ended
is "forkd status agrees" 6 "$(forkd status --json | jq '.children | length')"
has_single_threads
release_all
counts forkd.service 1

configure forkd <<'END'
[[listen]]
endpoints = ["systemd:echo"]
model = "prefork"
workers = 7
END
exits "systemctl restart" 0 systemctl restart forkd.service
# seven workers for TCP, and seven for UDP
counts forkd.service 15
hold_six
echoes tcp 127.0.0.1 7
echoes udp ::1 7
counts forkd.service 15
has_single_threads
release_all
counts forkd.service 15

exits "systemctl stop" 0 systemctl stop forkd.service
counts forkd.service 0
