#!/bin/bash
# Metrics by a socket that systemd hands over, as the service has no network of its own. The recipe is in recipes.sh.
. "$(dirname "$0")/lib.sh"
install_forkd
configure forkd <<'END'
[daemon]
grace = "1s"
metrics = "systemd:metrics"
[[listen]]
endpoints = ["systemd:echo"]
END

scrape() { printf 'GET /metrics HTTP/1.0\r\n\r\n' | timeout "$LIMIT" nc -N 127.0.0.1 9707; }

# has_sample NAME VALUE: of all sockets together
has_sample() { [[ $(scrape | awk -v name="$1{" 'index($0, name) == 1 { sum += $NF } END { print sum }') == "$2" ]]; }

exits "the service starts without the socket of metrics" 0 systemctl start forkd.service
echoes tcp 127.0.0.1 7
matches "the journal says so" 'serving without metrics.*systemd:metrics' "$(journal forkd.service PRIORITY=3)"
matches "forkd status says so" 'no metrics: cannot serve systemd:metrics' "$(forkd status)"

install -m 644 /usr/share/doc/forkd/examples/forkd-metrics.socket /etc/systemd/system
exits "systemctl enable" 0 systemctl enable --quiet forkd-metrics.socket
exits "systemctl start of a socket whose service runs is refused" 1 systemctl start forkd-metrics.socket
nc -l 127.0.0.1 9707 & # another program has the address; a connection to it would keep it beyond its end
has_listener() { [[ $(ss --no-header --listening --numeric --tcp 'sport = :9707') ]]; }
eventually "another program listens there" has_listener
exits "systemctl restart" 0 systemctl restart forkd.service
echoes tcp 127.0.0.1 7
is "errors in the journal" 2 "$(journal forkd.service PRIORITY=3 | wc -l)"
kill %1
wait %1 || true
exits "systemctl restart" 0 systemctl restart forkd.service
matches "a scrape" 'HTTP/1.1 200 OK.*forkd_build_info' "$(scrape)"
[[ $(forkd status) != *"no metrics"* ]] || fail "forkd status says that there are none"
counts forkd.service 2 # the master, and the child that serves metrics
hold one nc 127.0.0.1 7
eventually "the connection is in the metrics" has_sample forkd_connections_open 1
exits "systemctl reload" 0 systemctl reload forkd.service
eventually "and still is" has_sample forkd_connections_open 1
exits "systemctl restart" 0 systemctl restart forkd.service
eventually "no more" has_sample forkd_connections_open 0
is "no further errors in the journal" 2 "$(journal forkd.service PRIORITY=3 | wc -l)"

systemctl stop forkd.service 2>/dev/null
matches "a scrape starts a service that is stopped" 'HTTP/1.1 200 OK.*forkd_build_info' "$(scrape)"
exits "systemctl stop of its sockets" 0 systemctl stop forkd.socket
is "stops all" $'inactive\ninactive\ninactive' \
    "$(systemctl is-active forkd.socket forkd-metrics.socket forkd.service || true)"
exits "systemctl start" 0 systemctl start forkd.service
matches "starts all: a scrape" 'HTTP/1.1 200 OK.*forkd_build_info' "$(scrape)"
echoes tcp 127.0.0.1 7
