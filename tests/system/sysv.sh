#!/bin/bash
# A unit as for a SysV daemon: Type=forking with a pidfile.
. "$(dirname "$0")/lib.sh"
install_forkd

cat >/etc/systemd/system/forkd-sysv.service <<'END'
[Service]
Type=forking
PIDFile=/run/forkd.pid
ExecStart=/usr/bin/forkd serve --daemon --pidfile /run/forkd.pid --log syslog --user nobody tcp://127.0.0.1:7 udp://127.0.0.1:7
END
systemctl daemon-reload

exits "systemctl start" 0 systemctl start forkd-sysv
# at once: the command that was started returned when the daemon served
echoes tcp 127.0.0.1 7
echoes udp 127.0.0.1 7
is "the main process is that of the pidfile" "$(</run/forkd.pid)" "$(main_pid forkd-sysv)"
is "it runs as" nobody "$(ps -o user= -p "$(main_pid forkd-sysv)")"
counts forkd-sysv.service 1
for program in nc ncat socat; do hold $program $program 127.0.0.1 7; done
counts forkd-sysv.service 4
release nc ncat socat
counts forkd-sysv.service 1
matches "the journal has its lines" 'ready pid=' "$(journal forkd-sysv.service SYSLOG_IDENTIFIER=forkd)"

exits "systemctl stop" 0 systemctl stop forkd-sysv
is "it ended with" "success 0" "$(property forkd-sysv Result) $(property forkd-sysv ExecMainStatus)"
counts forkd-sysv.service 0

nc -lk 127.0.0.1 7 &
taken=$!
eventually "another program has the port" nc -z 127.0.0.1 7
exits "systemctl start fails when the port is taken" 1 systemctl start forkd-sysv
matches "its exit code is 69" 'code=exited, status=69' "$(systemctl status forkd-sysv)"
matches "the journal says why" 'cannot bind tcp://127\.0\.0\.1:7 .*Address already in use' "$(journal forkd-sysv.service)"
kill "$taken"
wait "$taken" || true
exits "systemctl start once the port is free" 0 systemctl start forkd-sysv
echoes tcp 127.0.0.1 7
