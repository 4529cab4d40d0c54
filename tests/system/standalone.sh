#!/bin/bash
# An instance without a socket unit: it binds port 7 itself.
. "$(dirname "$0")/lib.sh"
install_forkd
install -D -m 644 /test/systemd/examples/bind.conf /etc/systemd/system/forkd@own.service.d/bind.conf
systemctl daemon-reload
configure own <<'END'
[[listen]]
endpoints = ["tcp://[::]:7", "udp://[::]:7"]
END

exits "systemctl start" 0 systemctl start forkd@own.service
for protocol in tcp udp; do
    for host in 127.0.0.1 ::1; do echoes "$protocol" "$host" 7; done
done
pid=$(main_pid forkd@own.service)
[[ $(ps -o user= -p "$pid") != root ]] || fail "it runs as root"
ok "it runs as $(ps -o user= -p "$pid")"
# 10: CAP_NET_BIND_SERVICE
is "its capabilities" 0000000000000400 "$(sed -n 's/^CapEff:\t//p' "/proc/$pid/status")"
hold one nc 127.0.0.1 7
hold two socat ::1 7
counts forkd@own.service 3

systemctl stop --no-block forkd@own.service
eventually "it is stopping" has forkd@own.service SubState stop-sigterm
eventually "it takes no new client" bash -c '! nc -z 127.0.0.1 7'
say one "still there?"
say two "still there?"
release one two
eventually "it has stopped" has forkd@own.service ActiveState inactive
is "it ended with" "success 0" "$(property forkd@own Result) $(property forkd@own ExecMainStatus)"
for ((n = 0; n < 3; n++)); do
    exits "a restart finds the port free" 0 systemctl restart forkd@own.service
    echoes tcp ::1 7
done
