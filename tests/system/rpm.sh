#!/bin/bash
# The package for systems with rpm, from its installation to its removal. It is /test/forkd.rpm. This system has Debian's rpm,
# which knows nothing of Debian's packages: --nodeps.
. "$(dirname "$0")/lib.sh"

rpm_() { rpm --force-debian --nodeps "$@"; }

leftovers() {
    find /etc /usr /run /var /tmp -xdev -iname '*forkd*' ! -path '/var/log/*' ! -path '/var/cache/*' ! -path '/run/systemd/propagate/*' 2>/dev/null |
        sort
}
before=$(leftovers)

exits "it is installed" 0 rpm_ --install /test/forkd.rpm
is "nothing differs from the package" "" "$(rpm --verify --nodeps forkd)"
is "the presets enable it" $'enabled\nenabled' "$(systemctl is-enabled forkd.socket forkd.service)"
is "and it is not started" "inactive" "$(systemctl is-active forkd.service || true)"
exits "it starts" 0 systemctl start forkd.socket forkd.service
for host in 127.0.0.1 ::1; do
    echoes tcp $host 7
    echoes udp $host 7
done
main=$(main_pid forkd.service)
[[ $(ps -o user= -p "$main") != root ]] || fail "it runs as root"
for page in forkd.1 forkd.toml.5; do
    exits "there is a manual page $page" 0 man --where "${page##*.}" "${page%.*}"
done
exits "systemd-analyze verify has nothing to say" 0 systemd-analyze verify forkd.service forkd.socket

echo '# changed by the operator' >>/etc/forkd/forkd.toml
hold one nc 127.0.0.1 7
start_load tcp://127.0.0.1:7 udp://127.0.0.1:7
exits "it is installed over itself, as an upgrade is" 0 rpm_ --upgrade --force /test/forkd.rpm
say one "after the upgrade"
stop_load
release one
is "the process is the same" "$main" "$(main_pid forkd.service)"
matches "and has the new program" 'upgraded: this program has replaced the one before' "$(journal forkd.service)"
is "the operator's configuration stays" "# changed by the operator" "$(tail -n 1 /etc/forkd/forkd.toml)"

exits "it is removed" 0 rpm_ --erase forkd
[[ ! -d /proc/$main ]] || fail "the daemon runs on"
is "the changed configuration is kept beside" "# changed by the operator" "$(tail -n 1 /etc/forkd/forkd.toml.rpmsave)"
rm -r /etc/forkd
is "nothing else is left" "$before" "$(leftovers)"
