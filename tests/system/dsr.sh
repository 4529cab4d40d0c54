#!/bin/bash
# deploy/nftables: UDP by direct server return, with the file as it is. Balancer, servers and client are network namespaces.
. "$(dirname "$0")/lib.sh"
install_forkd
shared=192.0.2.7

ip netns add switch
ip -n switch link add bridge type bridge
ip -n switch link set bridge up
declare -A host=([balancer]=1 [a]=10 [b]=11 [client]=12)
for name in "${!host[@]}"; do
    ip netns add "$name"
    ip -n "$name" link set lo up
    ip -n switch link add "to-$name" type veth peer name eth0 netns "$name"
    ip -n switch link set "to-$name" master bridge up
    ip -n "$name" link set eth0 address "02:00:00:00:00:$(printf %02x "${host[$name]}")" up
    ip -n "$name" address add "192.0.2.$((10 + host[$name]))/24" dev eth0
done

ip -n balancer address add "$shared/24" dev eth0
exits "nft -f" 0 ip netns exec balancer nft -f /test/deploy/nftables/udp.nft
exits "nft -f in its place" 0 ip netns exec balancer nft -f /test/deploy/nftables/udp.nft
for name in a b; do
    exits "sysctl in $name" 0 ip netns exec "$name" sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    ip -n "$name" address add "$shared/32" dev lo
    cat >"/etc/systemd/system/forkd-$name.service" <<UNIT
[Service]
Type=notify
ExecStart=/usr/bin/forkd serve --control /run/forkd-$name.sock udp://0.0.0.0:7
NetworkNamespacePath=/run/netns/$name
UNIT
done
systemctl daemon-reload
exits "systemctl start" 0 systemctl start forkd-a.service forkd-b.service

# each from a port of its own, and connected: it takes an answer from the shared address alone
for ((i = 0; i < 40; i++)); do
    ip netns exec client forkd probe --timeout 10s "udp://$shared:7" >/dev/null || fail "probe $i has no echo"
done
ok "40 clients have their echo"
served() { forkd status --json --control "/run/forkd-$1.sock" | jq '.listeners[0].connections'; }
all_counted() { [[ $(($(served a) + $(served b))) -eq 40 ]]; }
eventually "each was served once" all_counted
[[ $(served a) -gt 0 && $(served b) -gt 0 ]] || fail "one server has had all of them: $(served a) and $(served b)"
ok "both servers have had some"
exits "the balancer itself serves nothing" 69 ip netns exec client forkd probe "udp://192.0.2.11:7"
