#!/bin/bash
# Metrics by a socket that systemd hands over, as the service has no network of its own.
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

exits "systemctl start of both sockets" 0 systemctl start forkd.socket forkd-metrics.socket
is "the service is" inactive "$(property forkd.service ActiveState)"
matches "a scrape starts it" 'HTTP/1.1 200 OK.*forkd_build_info' "$(scrape)"
is "the service is" active "$(property forkd.service ActiveState)"
counts forkd.service 2 # the master, and whoever serves metrics
hold one nc 127.0.0.1 7
eventually "the connection is in the metrics" has_sample forkd_connections_open 1
exits "systemctl reload" 0 systemctl reload forkd.service
eventually "and still is" has_sample forkd_connections_open 1
exits "systemctl restart" 0 systemctl restart forkd.service
eventually "no more" has_sample forkd_connections_open 0
is "errors in the journal" "" "$(journal forkd.service PRIORITY=3)"
exits "systemctl stop" 0 systemctl stop forkd.socket forkd-metrics.socket forkd.service
counts forkd.service 0
