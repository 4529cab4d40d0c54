#!/bin/bash
# An upgrade of the hardened service: the process stays, with all clients, although the unit sees the old file only.
. "$(dirname "$0")/lib.sh"
install_forkd
configure forkd <<'EOF'
[[listen]]
endpoints = ["systemd:echo"]
max-per-source = 128
EOF
exits "the service starts" 0 systemctl start forkd.socket forkd.service
main=$(main_pid forkd.service)
hold one nc 127.0.0.1 7
say one "before the upgrade"
start_load tcp://127.0.0.1:7 tcp://[::1]:7 udp://127.0.0.1:7 udp://[::1]:7

# as dpkg does it
install_again() {
    cp /usr/bin/forkd /usr/bin/forkd.dpkg-new
    mv /usr/bin/forkd.dpkg-new /usr/bin/forkd
}
for turn in 1 2 3; do
    install_again
    exits "upgrade $turn" 0 forkd upgrade
    is "the process is the same" "$main" "$(main_pid forkd.service)"
    say one "after upgrade $turn"
    echoes tcp ::1 7
    echoes udp 127.0.0.1 7
done
is "the service is active" active "$(systemctl is-active forkd.service)"
matches "forkd status answers" "forkd pid $main" "$(forkd status)"
matches "the journal tells of it" 'upgraded: this program has replaced the one before' "$(journal forkd.service)"
is "what it executes is the new file" "/usr/bin/forkd" "$(readlink "/proc/$main/exe")"

# its interpreter is not among ExecPaths=
exits "another program is refused" 77 forkd upgrade --program /bin/true
matches "with the reason" 'cannot start the program for a trial: Permission denied' "$output"
exits "one that others may write is refused" 77 bash -c \
    'cp /usr/bin/forkd /run/forkd.writable && chmod 777 /run/forkd.writable && forkd upgrade --program /run/forkd.writable'
matches "with the reason" 'can be written by others' "$output"

# the path leads to a file of the host, which is under NoExecPaths= here
systemctl kill --kill-whom=main --signal=USR2 forkd.service
refused() { journalctl -o cat -u forkd.service | grep -q 'upgrade refused.*cannot start /usr/bin/forkd for a trial'; }
eventually "SIGUSR2 is refused with the reason" refused
say one "after what was refused"

exits "a reload still works" 0 systemctl reload forkd.service
release one
stop_load
exits "a restart still works" 0 systemctl restart forkd.service
echoes tcp 127.0.0.1 7
[[ $(main_pid forkd.service) != "$main" ]] || fail "the old process"
