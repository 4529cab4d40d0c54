#!/bin/bash
# forkd@NAME: instances, each with a file, sockets and processes of its own.
. "$(dirname "$0")/lib.sh"
install_forkd

configure a <<'END'
[[listen]]
endpoints = ["systemd:echo"]
model = "prefork"
workers = 2
END
configure b <<'END'
[[listen]]
endpoints = ["systemd:echo"]
END
drop_in forkd@a.socket <<'END'
[Socket]
ListenStream=7001
ListenDatagram=7001
END
drop_in forkd@b.socket <<'END'
[Socket]
ListenStream=7002
END
exits "systemctl enable --now" 0 systemctl enable --now forkd@a.socket forkd@b.socket
echoes tcp 127.0.0.1 7001
echoes udp ::1 7001
echoes tcp ::1 7002
is "echo by the socket that each instance has" "a Unix socket" "$(timeout 20 nc -NU /run/forkd-a.sock <<<"a Unix socket")"
counts forkd@a.service 7 # two workers for each of its three sockets
counts forkd@b.service 1
hold one nc 127.0.0.1 7001
hold two nc 127.0.0.1 7002
counts forkd@a.service 7
counts forkd@b.service 2

exits "systemctl reload of one" 0 systemctl reload forkd@a.service
exits "systemctl restart of one" 0 systemctl restart forkd@a.service
say two "still there?"
exits "systemctl stop of one" 0 systemctl stop forkd@a.socket forkd@a.service
counts forkd@a.service 0
say two "still there?"
release one two

exits "systemctl start fails without a file" 1 systemctl start forkd@c.service
matches "the journal says why" '/etc/forkd/c\.toml.*No such file' "$(journal forkd@c.service)"
