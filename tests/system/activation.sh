#!/bin/bash
# The service gets its sockets from systemd.
. "$(dirname "$0")/lib.sh"
install_forkd
configure forkd <<'END'
[[listen]]
endpoints = ["systemd:echo"]
END

exits "systemctl start forkd.socket" 0 systemctl start forkd.socket
is "the service is" inactive "$(property forkd.service ActiveState)"
for protocol in tcp udp; do
    for host in 127.0.0.1 ::1; do
        # the first starts the service
        echoes "$protocol" "$host" 7
        is "the service is" active "$(property forkd.service ActiveState)"
        systemctl stop forkd.service 2>/dev/null
        is "the service is" inactive "$(property forkd.service ActiveState)"
    done
done

# Sockets of two names and all kinds, for one service.
cat >/usr/lib/systemd/system/forkd-a.socket <<'END'
[Socket]
ListenStream=127.0.0.1:7001
FileDescriptorName=a
Service=forkd-names.service
END
cat >/usr/lib/systemd/system/forkd-b.socket <<'END'
[Socket]
ListenStream=[::1]:7002
ListenDatagram=[::1]:7002
ListenStream=/run/b.stream
ListenDatagram=/run/b.datagram
FileDescriptorName=b
Service=forkd-names.service
END
cat >/usr/lib/systemd/system/forkd-names.service <<'END'
[Service]
Type=notify
Sockets=forkd-b.socket forkd-a.socket
ExecStart=/usr/bin/forkd serve --config /etc/forkd/names.toml
END
systemctl daemon-reload

echo_of_all() {
    echoes tcp 127.0.0.1 7001
    echoes tcp ::1 7002
    echoes udp ::1 7002
    is "echo by a Unix stream socket" "a stream" "$(timeout 20 nc -NU /run/b.stream <<<"a stream")"
    is "echo by a Unix datagram socket" "a datagram" \
        "$(timeout 20 socat -t.3 - UNIX-SENDTO:/run/b.datagram,bind=/run/client <<<"a datagram")"
}

configure names <<'END'
[[listen]]
endpoints = ["systemd:a"]
model = "prefork"
workers = 3
[[listen]]
endpoints = ["systemd:b"]
END
exits "systemctl start of both sockets" 0 systemctl start forkd-a.socket forkd-b.socket
echo_of_all
counts forkd-names.service 4
hold one nc 127.0.0.1 7001
counts forkd-names.service 4 # "a" has workers
hold two nc ::1 7002
counts forkd-names.service 5 # "b" has a child for each connection
release one two

configure names <<<'# nothing named: all that was handed over'
exits "systemctl restart" 0 systemctl restart forkd-names.service
echo_of_all
counts forkd-names.service 1

configure names <<'END'
[[listen]]
endpoints = ["systemd:c"]
END
exits "systemctl restart fails with a name that wasn't handed over" 1 systemctl restart forkd-names.service
is "exit code" "exit-code 69" "$(property forkd-names Result) $(property forkd-names ExecMainStatus)"
matches "the journal says which, and which there are" 'systemd:c: .*named a, b' "$(journal forkd-names.service)"
