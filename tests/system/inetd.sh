#!/bin/bash
# forkd in the place of a line of inetd.conf: one process for one connection, which is its standard input.
. "$(dirname "$0")/lib.sh"
install_forkd

cat >/usr/lib/systemd/system/forkd-inetd.socket <<'END'
[Socket]
ListenStream=7
Accept=yes
END
cat >/usr/lib/systemd/system/forkd-inetd@.service <<'END'
[Service]
ExecStart=/usr/bin/forkd serve --inetd
StandardInput=socket
StandardError=journal
END
systemctl daemon-reload

instances() { systemctl list-units --no-legend --plain "forkd-inetd@*" | wc -l; }
has_instances() { [[ $(instances) -eq $1 ]]; }

exits "systemctl start of a socket with Accept=yes" 0 systemctl start forkd-inetd.socket
echoes tcp 127.0.0.1 7
echoes tcp ::1 7
eventually "nothing is left, and nothing has failed" has_instances 0
hold one nc 127.0.0.1 7
hold two ncat ::1 7
hold three socat 127.0.0.1 7
is "instances for three connections" 3 "$(instances)"
for unit in $(systemctl list-units --no-legend --plain "forkd-inetd@*" | cut -d' ' -f1); do
    counts "$unit" 1
done
release one two three
eventually "nothing is left, and nothing has failed" has_instances 0

# another program that accepts, and hands the connection over as inetd does
socat TCP-LISTEN:7001,fork,reuseaddr EXEC:"/usr/bin/forkd serve --inetd",nofork &
eventually "it listens" nc -z 127.0.0.1 7001
echoes tcp 127.0.0.1 7001
