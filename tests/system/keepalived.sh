#!/bin/bash
# deploy/keepalived: an address moves between two machines when forkd on one of them no longer echoes. The machines are
# network namespaces.
. "$(dirname "$0")/lib.sh"
install_forkd
address=192.0.2.7

ip link add to-a type veth peer name to-b
for name in a b; do
    ip netns add "$name"
    ip link set "to-$name" netns "$name"
    host=11
    [[ $name == a ]] || host=12
    ip -n "$name" link set "to-$name" name eth0
    ip -n "$name" address add "192.0.2.$host/24" dev eth0
    ip -n "$name" link set lo up
    ip -n "$name" link set eth0 up
    cat >"/etc/systemd/system/forkd-$name.service" <<UNIT
[Service]
Type=notify
ExecStart=/usr/bin/forkd serve --control /run/forkd-$name.sock tcp://0.0.0.0:7007 udp://0.0.0.0:7007
NetworkNamespacePath=/run/netns/$name
UNIT
    cat >"/etc/systemd/system/address-$name.service" <<UNIT
[Service]
ExecStart=/usr/sbin/keepalived --dont-fork --log-console --vrrp --pid=/run/keepalived-$name.pid \
    --vrrp_pid=/run/vrrp-$name.pid --use-file=/test/deploy/keepalived/keepalived.conf
NetworkNamespacePath=/run/netns/$name
UNIT
done
systemctl daemon-reload
exits "systemctl start" 0 systemctl start forkd-a.service forkd-b.service address-a.service address-b.service

has_address() { ip -n "$1" -4 address show dev eth0 | grep -q "inet $address/"; }
alone() { has_address "$1" && ! has_address "$2"; }
one_has_it() { alone a b || alone b a; }
answers() {
    ip netns exec b forkd probe --timeout 2s "tcp://$address:7007" && ip netns exec b forkd probe --timeout 2s "udp://$address:7007"
}
eventually "one of the two has the address" one_has_it
eventually "it answers there" answers
first=a second=b
has_address a || first=b second=a

# a process that lives and serves nobody
mapfile -t stuck < <(pids "forkd-$first.service")
kill -STOP "${stuck[@]}"
eventually "the other one takes the address" alone "$second" "$first"
eventually "it answers there" answers
kill -CONT "${stuck[@]}"
eventually "the first one echoes again" ip netns exec "$first" forkd probe tcp://127.0.0.1:7007
exits "systemctl stop of the second" 0 systemctl stop "forkd-$second.service"
eventually "the address is back" alone "$first" "$second"
eventually "it answers there" answers
