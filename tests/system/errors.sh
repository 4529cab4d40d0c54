#!/bin/bash
# What a unit forbids, the journal says, with the setting and the way out. Each row of the table in docs/SYSTEMD.md is
# tried under the unit as it is shipped, and its text must be what the journal says.
. "$(dirname "$0")/lib.sh"
install_forkd

mapfile -t rows < <(sed -n '/^### What a unit forbids/,/^#/p' /test/SYSTEMD.md | grep '^| `')
declare -A tried=() # by their index

# cell N ROW
cell() { awk -F ' *[|] *' "{ print \$$(($1 + 1)) }" <<<"$2"; }

# pattern ROW: its text as a regular expression; an ellipsis stands for anything
pattern() { cell 1 "$1" | sed -e 's/^`//' -e 's/`$//' -e 's/[][\.*^$+?(){}|]/\\&/g' -e 's/…/.*/g'; }

# matching TEXT: the rows whose text is in there
matching() {
    local at
    for at in "${!rows[@]}"; do
        ! grep -qE -- "$(pattern "${rows[at]}")" <<<"$1" || echo "$at"
    done
}

# is_told SETTING COMMAND...: what the command prints comes to have the text of one row and no other, which names the
# setting
is_told() {
    local setting=$1 until=$((SECONDS + LIMIT)) found text
    shift
    # the end of a process may be known before its last words
    until text=$("$@") && found=$(matching "$text") && [[ -n $found ]]; do
        [[ $SECONDS -lt $until ]] || fail "no row of docs/SYSTEMD.md has this:"$'\n'"$text"
        sleep 0.05
    done
    [[ $found != *[[:space:]]* ]] || fail "several rows of docs/SYSTEMD.md have this:"$'\n'"$text"
    [[ $(cell 2 "${rows[found]}") == *"$setting"* ]] || fail "it is not $setting: ${rows[found]}"
    tried[$found]=1
    ok "$setting: $(cell 1 "${rows[found]}")"
}

# said: what the journal has since the last start
said() {
    journalctl --sync
    journalctl --no-pager --output cat --after-cursor "$cursor" -u forkd.service
}

# runs [LINE...] <<TOML: starts the service with this configuration, and these lines in a drop-in
runs() {
    configure forkd
    printf '%s\n' '[Unit]' StartLimitIntervalSec=0 '[Service]' Restart=no "$@" | drop_in forkd.service
    cursor=$(journalctl --no-pager -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
    systemctl restart forkd.service
}

# forbidden SETTING [LINE...] <<TOML: it doesn't start, and the journal says why
forbidden() {
    ! runs "${@:2}" 2>/dev/null || fail "$1 forbids nothing"
    is_told "$1" said
}

# told SETTING [LINE...] <<TOML: it starts, and the journal says what is wrong
told() {
    runs "${@:2}" || fail "the service doesn't start"
    is_told "$1" said
}

# configuration files
echo_with() { printf '[daemon]\n%s = %s\n[[listen]]\nendpoints = ["systemd:echo"]\n' "$1" "$2"; }
listen_at() { printf '[[listen]]\nendpoints = ["%s"]\n' "$1"; }
exec_of() { printf '[[listen]]\nendpoints = ["systemd:echo"]\nservice = "exec"\nexec = ["%s"]\n' "$1"; }
files_of() { printf '[[listen]]\nendpoints = ["systemd:echo"]\nservice = "http"\nroot = "%s"\n' "$1"; }
program() { install -D -m "$2" /dev/stdin "$1"; }

# sockets
forbidden ListenDatagram= < <(files_of /srv)
install -D -m 644 /usr/share/doc/forkd/examples/tcp-only.conf /etc/systemd/system/forkd.socket.d/tcp-only.conf
systemctl daemon-reload
systemctl restart forkd.socket
forbidden RestrictAddressFamilies= < <(listen_at tcp://127.0.0.1:8007)
forbidden RestrictAddressFamilies= < <(listen_at 'udp://[::1]:8007')
forbidden RestrictAddressFamilies= < <(echo_with metrics '"tcp://127.0.0.1:9707"')
forbidden RestrictAddressFamilies= RestrictAddressFamilies= RestrictAddressFamilies=AF_INET TimeoutStartSec=1 \
    < <(echo_with grace '"1s"')
inet='RestrictAddressFamilies=AF_INET AF_INET6'
right=CAP_NET_BIND_SERVICE
told PrivateNetwork= "$inet" < <(listen_at tcp://127.0.0.1:8007)
forbidden PrivateNetwork= "$inet" < <(listen_at tcp://192.0.2.1:8007)
forbidden CapabilityBoundingSet= "$inet" PrivateNetwork=no < <(listen_at tcp://127.0.0.1:107)
forbidden AmbientCapabilities= "$inet" PrivateNetwork=no PrivateUsers=no CapabilityBoundingSet=$right \
    < <(listen_at tcp://127.0.0.1:107)
forbidden PrivateUsers= "$inet" PrivateNetwork=no CapabilityBoundingSet=$right AmbientCapabilities=$right \
    < <(listen_at tcp://127.0.0.1:107)
forbidden NoExecPaths= < <(listen_at tcp://forkd.example:8007)

# files
forbidden ProtectSystem= < <(listen_at unix:///run/echo.sock)
forbidden ProtectSystem= < <(echo_with pidfile '"/etc/forkd.pid"')
forbidden ProtectSystem= < <(echo_with control '"/srv/control.sock"')
forbidden RuntimeDirectory= < <(echo_with control '"/run/nowhere/control.sock"')
forbidden DynamicUser= ReadOnlyPaths= < <(listen_at unix:///run/echo.sock)
told PrivateTmp= < <(listen_at unix:///tmp/echo.sock)
mkdir -p /home/alice/www /tmp/www
forbidden ProtectHome= < <(files_of /home/alice/www)
forbidden ProtectHome= ProtectHome=tmpfs < <(files_of /home/alice/www)
forbidden ProtectHome= < <(echo_with pidfile '"/root/forkd.pid"')
forbidden PrivateTmp= < <(files_of /tmp/www)
forbidden InaccessiblePaths= InaccessiblePaths=/opt < <(files_of /opt/www)
forbidden DynamicUser= ExecStartPre=+'/usr/bin/chmod 600 /etc/forkd/forkd.toml' < <(echo_with grace '"1s"')

install -D -m 600 /dev/stdin /srv/www/secret <<<secret
runs < <(files_of /srv/www)
printf 'GET /secret HTTP/1.0\r\n\r\n' | timeout "$LIMIT" nc -N 127.0.0.1 7 >/run/answer
matches "a file that only root may read" '403 Forbidden' "$(</run/answer)"
is_told DynamicUser= said

# programs: forkd names what is lacking, and with that it serves
answers() { timeout "$LIMIT" nc -N 127.0.0.1 7 </dev/null; }
program /usr/local/bin/hello 755 <<<$'#!/bin/sh\necho hello'
lacking=()
while true; do
    ! runs "ExecPaths=/usr/bin/forkd ${lacking[*]-}" < <(exec_of /usr/local/bin/hello) 2>/dev/null || break
    is_told NoExecPaths= said
    lacking+=("$(said | sed -n 's/.*add ExecPaths=//p')")
    [[ ${#lacking[@]} -eq 1 ]] || fail "what is lacking comes bit by bit: ${lacking[*]}"
done
is "what ExecPaths= lacked" "/usr/local/bin/hello $(readlink -f /bin/sh) /usr/lib" "${lacking[*]}"
is "its answer" hello "$(answers)"
program /home/alice/hello 755 <<<'#!/bin/sh'
forbidden ProtectHome= < <(exec_of /home/alice/hello)
program /usr/local/bin/closed 644 <<<'#!/bin/sh'
forbidden "the program's mode" < <(exec_of /usr/local/bin/closed)
program /usr/local/bin/lost 755 <<<'#!/usr/bin/no-interpreter'
forbidden interpreter ExecPaths=/usr/local/bin/lost < <(exec_of /usr/local/bin/lost)
loader=$(readlink -f "$(LC_ALL=C grep -aom 1 '/lib[^[:cntrl:]]*/ld-[^[:cntrl:]]*' /usr/bin/cat)")
runs "ExecPaths=/usr/bin/cat $loader" < <(exec_of /usr/bin/cat)
answers || true
is_told NoExecPaths= said

# the process
forbidden DynamicUser= < <(echo_with user '"nobody"')
forbidden DynamicUser= < <(echo_with group '"no-such-group"')
forbidden DynamicUser= < <(echo_with chroot '"/srv"')
root=(DynamicUser=no PrivateUsers=no)
rights='CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SYS_CHROOT'
forbidden CapabilityBoundingSet= "${root[@]}" < <(echo_with user '"nobody"')
forbidden CapabilityBoundingSet= "${root[@]}" < <(echo_with chroot '"/srv"')
forbidden PrivateUsers= DynamicUser=no "$rights" < <(echo_with user '"nobody"')
forbidden SystemCallFilter= "${root[@]}" "$rights" < <(echo_with user '"nobody"')
forbidden SystemCallFilter= "${root[@]}" "$rights" < <(echo_with chroot '"/srv"')
forbidden Type= < <(echo_with daemon true)
forbidden SystemCallFilter= 'SystemCallFilter=~accept accept4' < <(echo_with grace '"1s"')
forbidden LimitNOFILE= LimitNOFILE=8 < <(echo_with grace '"1s"')
if [[ $(property run-test.service TasksCurrent) == "[not set]" ]]; then
    echo "left out: TasksMax= has no effect here, because there is no controller for it"
    for at in "${!rows[@]}"; do [[ ${rows[at]} != *TasksMax=* ]] || unset 'rows[at]'; done
else
    told TasksMax= TasksMax=4 < <(listen_at systemd:echo; echo 'model = "prefork"')
fi

# the control socket is the service's own
runs < <(echo_with grace '"1s"')
for command in status reload; do
    exits "forkd $command of another user" 77 setpriv --reuid nobody --clear-groups forkd $command
    is_told "the control socket" echo "$output"
done

for at in "${!rows[@]}"; do
    [[ -n ${tried[$at]-} ]] || fail "this row has not been tried: ${rows[at]}"
done
is "rows that have been tried" "${#rows[@]}" "${#tried[@]}"
