#!/bin/bash
# A stop with --drain-delay loses no client: behind nftables, as kube-proxy spreads the clients of a service over its
# endpoints, and behind HAProxy, which tries no other server. Without the delay both lose some, or this would prove nothing.
. "$(dirname "$0")/lib.sh"
install_forkd

declare -A port=([a]=7001 [b]=7002) health=([a]=9701 [b]=9702)
for name in a b; do
    configure "$name" <<TOML
[daemon]
metrics = "tcp://127.0.0.1:${health[$name]}"
control = "/run/forkd-$name.sock"
[[listen]]
endpoints = ["tcp://127.0.0.1:${port[$name]}"]
model = "prefork"
TOML
    # TimeoutStopSec= is less than the delay: the daemon asks for more
    cat >"/etc/systemd/system/forkd-$name.service" <<UNIT
[Service]
Type=notify
ExecStart=/usr/bin/forkd serve --config /etc/forkd/$name.toml
TimeoutStopSec=3
UNIT
done

# delay DURATION: both start again, and have it from now on
delay() {
    local name
    for name in a b; do
        printf '[Service]\nEnvironment=FORKD_DRAIN_DELAY=%s\n' "$1" | drop_in "forkd-$name.service"
    done
    exits "systemctl restart, drain-delay $1" 0 systemctl restart forkd-a.service forkd-b.service
}

# What is done under load: one of the two is stopped, and started when no more clients are sent there; then the other one.
cat >/run/stop-each <<'STOP'
set -euo pipefail
for name in a b; do
    systemctl stop "forkd-$name.service"
    while /run/gets-clients "$name"; do sleep 0.05; done
    systemctl start "forkd-$name.service"
    until /run/gets-clients "$name"; do sleep 0.05; done
done
STOP

# loses nothing|some ENDPOINT: of the clients that come meanwhile
loses() {
    local status=0 done lost
    timeout "$((LIMIT * 2))" forkd load --during 'bash /run/stop-each' --phases churn --rate 200/s --timeout 10s \
        --i-own-this-host --json - "$2" >/run/load.json 2>/run/load.err || status=$?
    done=$(jq '.phases[0].done' /run/load.json) && lost=$(jq .during.lost /run/load.json) ||
        fail "no figures, and status $status: $(cat /run/load.err)"
    is "exit code of the commands" 0 "$(jq .during.exit_code /run/load.json)"
    if [[ $1 == nothing ]]; then
        [[ $lost == 0 && $status == 0 ]] || fail "$lost lost, status $status: $(cat /run/load.err; jq -c '.during.losses[:5]' /run/load.json)"
        ok "$2: none of $done clients is lost"
    else
        [[ $lost -gt 0 && $status == 1 ]] || fail "$2: without a delay none of $done clients is lost"
        ok "$2: without a delay $lost of $done clients are lost"
    fi
}

# --- nftables

nft -f - <<'NFT' || fail "nftables can't be used here"
table ip services {
    chain a { tcp dport 7 dnat to 127.0.0.1:7001; }
    chain b { tcp dport 7 dnat to 127.0.0.1:7002; }
    chain echo { }
    chain output {
        type nat hook output priority -100;
        ip daddr 10.96.0.1 tcp dport 7 goto echo
    }
}
NFT
ip address add 10.96.0.1/32 dev lo

mkdir /run/endpoints
printf '#!/bin/sh\n[ -e "/run/endpoints/$1" ]\n' >/run/gets-clients
chmod 755 /run/gets-clients

is_ready() { [[ $(printf 'GET /readyz HTTP/1.0\r\n\r\n' | timeout 5 nc -N 127.0.0.1 "${health[$1]}") == "HTTP/1.1 200 "* ]]; }

# The endpoints that are ready get the clients; that one is not comes into force half a second late.
control_endpoints() {
    local name now before='' targets
    while :; do
        now=
        for name in a b; do
            if is_ready "$name"; then now+=$name; fi
        done
        if [[ $now != "$before" ]]; then
            [[ ${#now} -gt ${#before} ]] || sleep 0.5
            case $now in
            ab) targets='numgen random mod 2 vmap { 0 : goto a, 1 : goto b }' ;;
            a | b) targets="goto $now" ;;
            *) targets=drop ;;
            esac
            nft "flush chain ip services echo; add rule ip services echo $targets"
            for name in a b; do
                if [[ $now == *$name* ]]; then : >"/run/endpoints/$name"; else rm -f "/run/endpoints/$name"; fi
            done
            before=$now
        fi
        sleep 0.05
    done
}
control_endpoints &
controller=$!
both_get_clients() { /run/gets-clients a && /run/gets-clients b; }

delay 0s
eventually "both get clients" both_get_clients
loses some tcp://10.96.0.1:7
delay 5s
eventually "both get clients" both_get_clients
loses nothing tcp://10.96.0.1:7
for name in a b; do
    is "systemd has waited for $name" "success 0" \
        "$(property forkd-$name.service Result) $(property forkd-$name.service ExecMainStatus)"
    matches "$name has announced its end" 'draining.*signal=SIGTERM.*delay=5s.*stopping signal=drain-delay.*cut=0' \
        "$(journal forkd-$name.service | tr '\n' ' ')"
done

# What the service manager hears meanwhile.
says() { property forkd-a.service StatusText | grep -q -- "$1"; }
systemctl stop --no-block forkd-a.service
eventually "the status text says it" says '^draining: '
has forkd-a.service ActiveState deactivating || fail "systemd doesn't know that it stops"
matches "forkd status says it" ', draining' "$(forkd status --control /run/forkd-a.sock)"
eventually "it has stopped" has forkd-a.service ActiveState inactive
kill "$controller"
wait "$controller" || true

# --- HAProxy

cat >/run/haproxy.cfg <<'HAPROXY'
global
    stats socket /run/haproxy.sock
defaults
    mode tcp
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen echo
    bind 127.0.0.1:7000
    # of a weight of 1, 99 percent are 0
    default-server weight 100 check inter 200ms agent-check agent-inter 200ms agent-send "agent\n"
    server a 127.0.0.1:7001 agent-port 9701
    server b 127.0.0.1:7002 agent-port 9702
HAPROXY
cat >/run/gets-clients <<'GETS'
#!/bin/sh
echo 'show stat' | socat - /run/haproxy.sock | grep -q "^echo,$1,.*,UP,"
GETS
printf '[Service]\nExecStart=/usr/sbin/haproxy -db -f /run/haproxy.cfg\n' >/etc/systemd/system/balancer.service
systemctl daemon-reload
exits "systemctl start of HAProxy" 0 systemctl start balancer.service

delay 0s
eventually "both get clients" both_get_clients
loses some tcp://127.0.0.1:7000
delay 5s
eventually "both get clients" both_get_clients
loses nothing tcp://127.0.0.1:7000
