#!/bin/bash
# deploy/haproxy: forkd on two servers behind HAProxy, with the files as they are, but for the addresses of the servers, which
# are all on this machine.
. "$(dirname "$0")/lib.sh"
install_forkd
deploy=/test/deploy/haproxy

for address in 192.0.2.1 192.0.2.11 192.0.2.12; do ip address add "$address/32" dev lo; done
exits "haproxy -c" 0 haproxy -c -f "$deploy/haproxy.cfg"
exits "forkd check" 0 forkd check --config "$deploy/forkd.toml"

for name in a b; do
    address=192.0.2.11
    [[ $name == a ]] || address=192.0.2.12
    sed "s/0\.0\.0\.0/$address/" "$deploy/forkd.toml" | configure "$name"
    cat >"/etc/systemd/system/forkd-$name.service" <<UNIT
[Service]
Type=notify
ExecStart=/usr/bin/forkd serve --log-level debug --control /run/forkd-$name.sock --config /etc/forkd/$name.toml
UNIT
done
# on one machine a connection to an address comes from that address
sed 's/default-server send-proxy-v2/default-server source 192.0.2.1 send-proxy-v2/' "$deploy/haproxy.cfg" >/run/haproxy.cfg
printf '[Service]\nExecStart=/usr/sbin/haproxy -db -f /run/haproxy.cfg\n' >/etc/systemd/system/forkd-balancer.service
systemctl daemon-reload
exits "systemctl start" 0 systemctl start forkd-a.service forkd-b.service forkd-balancer.service

# is_in STATE NAME: as HAProxy sees it
is_in() { echo "show stat" | socat - /run/haproxy.sock | grep -q "^echo,$2,.*,$1[ ,]"; }
both_up() { is_in UP a && is_in UP b; }
eventually "both servers get clients" both_up
echoes tcp 127.0.0.1 7
echoes tcp 192.0.2.1 7
clients() { journal "forkd-$1.service" | grep -c 'connection closed peer=127\.0\.0\.1:'; }
has_clients() { [[ $(clients a) -gt 0 && $(clients b) -gt 0 ]]; }
for ((i = 0; i < 10; i++)); do timeout "$LIMIT" nc -N 127.0.0.1 7 <<<"one of many" >/dev/null; done
eventually "both know the address of the client" has_clients
exits "a client that comes by no proxy is refused" 69 forkd probe --timeout 10s tcp://192.0.2.11:7007

# One after the other is stopped and started again, under load.
cat >/run/restart-each <<'RESTART'
set -euo pipefail
state() { echo "show stat" | socat - /run/haproxy.sock | grep -q "^echo,$2,.*,$1[ ,]"; }
for name in a b; do
    systemctl stop --no-block "forkd-$name.service"
    while state UP "$name"; do sleep 0.05; done
    systemctl stop "forkd-$name.service" # waits for its end
    systemctl start "forkd-$name.service"
    until state UP "$name"; do sleep 0.05; done
done
RESTART
exits "no client is lost when each is restarted" 0 timeout 90 forkd load --during 'bash /run/restart-each' \
    --phases churn --rate 100/s --timeout 10s tcp://127.0.0.1:7
printf '%s\n' "$output" | tail -n 3
