#!/bin/bash
# --log syslog with rsyslog behind /dev/log: while it runs, is restarted, hangs, and is not there.
. "$(dirname "$0")/lib.sh"
install_forkd

cat >/etc/rsyslog-test.conf <<'END'
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="/run/systemd/journal/dev-log" RateLimit.Interval="0")
template(name="line" type="string" string="<%pri%>%syslogtag%%msg%\n")
action(type="omfile" file="/run/messages" template="line")
END
# /dev/log, also that of services with PrivateDevices=yes, leads to the journal's socket: take its place
cat >/etc/systemd/system/rsyslog-test.service <<'END'
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStartPre=rm -f /run/systemd/journal/dev-log
ExecStart=/usr/sbin/rsyslogd -n -i NONE -f /etc/rsyslog-test.conf
END
systemctl daemon-reload
configure forkd <<'END'
[daemon]
log = "syslog"
log-level = "debug"
[[listen]]
endpoints = ["systemd:echo"]
END

wrote() { grep -E -- "$1" /run/messages; }
lost() { wrote 'log lines were lost' | tail -n 1; }

# The report of the loss comes with the next line that there is.
reports_loss() {
    nc -N 127.0.0.1 7 <<<"a line more" >/dev/null
    [[ $(wrote 'log lines were lost' | wc -l) -gt $1 ]]
}

exits "start of rsyslog" 0 systemctl start rsyslog-test.service
exits "systemctl start" 0 systemctl start forkd.service
pid=$(main_pid forkd.service)
eventually "rsyslog has the lines" wrote "^<30>forkd\[$pid\]: ready pid=$pid "
echoes tcp 127.0.0.1 7
eventually "also those of children" wrote '^<31>forkd\[[0-9]+\]: debug: connection closed'

exits "stop of rsyslog" 0 systemctl stop rsyslog-test.service
start=$SECONDS
for ((n = 0; n < 3; n++)); do echoes tcp ::1 7; done
[[ $((SECONDS - start)) -lt 5 ]] || fail "without rsyslog, connections take $((SECONDS - start)) s"
exits "start of rsyslog" 0 systemctl start rsyslog-test.service
eventually "the loss is reported" reports_loss 0
matches "with the number of lines: $(lost)" '^<28>forkd\[[0-9]+\]: warning: .* count=[1-9][0-9]*' "$(lost)"
is "main process" "$pid" "$(main_pid forkd.service)"

start_load tcp://127.0.0.1:7
for ((n = 0; n < 5; n++)); do systemctl restart rsyslog-test.service; done
stop_load
ok "5 restarts of rsyslog"
before=$(wrote 'log lines were lost' | wc -l)
kill -STOP "$(main_pid rsyslog-test.service)"
start_load tcp://127.0.0.1:7
until=$((SECONDS + 3))
until [[ $SECONDS -ge $until ]]; do sleep 0.1; done
stop_load
ok "3 s of load while rsyslog hangs"
kill -CONT "$(main_pid rsyslog-test.service)"
eventually "the loss is reported" reports_loss "$before"

systemctl stop rsyslog-test.service
exits "systemctl stop without rsyslog" 0 systemctl stop forkd.service
is "it ended with" "success 0" "$(property forkd Result) $(property forkd ExecMainStatus)"
exits "systemctl start fails where no syslog daemon listens" 1 systemctl start forkd.service
matches "the journal says why" 'no syslog daemon listens' "$(journal forkd.service)"
