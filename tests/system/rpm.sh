#!/bin/bash
# The package for systems with rpm, from its installation to its removal. It is /test/forkd.rpm, and /test/newer.rpm another
# version. This system has Debian's rpm, which knows nothing of Debian's packages: --nodeps.
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

echo 'listen = [{ endpoints = ["tcp://localhost:77"] }]' >/etc/forkd/own.toml
drop_in forkd@own.service </usr/share/doc/forkd/examples/bind.conf
exits "an instance" 0 systemctl enable --now forkd@own.service
instance=$(main_pid forkd@own.service)
echo '# changed by the operator' >>/etc/forkd/forkd.toml
hold one nc 127.0.0.1 7
start_load tcp://127.0.0.1:7 udp://127.0.0.1:7 tcp://127.0.0.1:77
exits "a newer version is installed" 0 rpm_ --upgrade /test/newer.rpm
say one "after the upgrade"
stop_load
release one
is "the only version is" "forkd-99.0.0-1" "$(rpm --query --queryformat '%{NVR}' forkd)"
is "the processes are the same" "$main $instance" "$(main_pid forkd.service) $(main_pid forkd@own.service)"
for unit in forkd.service forkd@own.service; do
    matches "$unit has the new program" 'upgraded: this program has replaced the one before' "$(journal "$unit")"
done
is "the operator's configuration stays" "# changed by the operator" "$(tail -n 1 /etc/forkd/forkd.toml)"
is "that of the new version is beside" "# new in this version" "$(tail -n 1 /etc/forkd/forkd.toml.rpmnew)"
is "nothing else differs from the package" /etc/forkd/forkd.toml "$(rpm --verify --nodeps forkd | sed 's/.* //' || true)"

# A restart would end what serves.
cp /etc/forkd/forkd.toml /run
echo 'what = "is this"' >>/etc/forkd/forkd.toml
exits "an upgrade with a configuration that can't be served" 0 rpm_ --upgrade --force /test/newer.rpm
matches "says so" "unknown field .what.*forkd.service is not restarted" "$output"
is "and leaves the old service running" "$main" "$(main_pid forkd.service)"
echoes tcp ::1 7
mv /run/forkd.toml /etc/forkd

exits "it is removed" 0 rpm_ --erase forkd
is "processes of it" 0 "$(pgrep -c forkd || true)"
is "who listens" "" "$(ss --no-header --listening --numeric --tcp --udp 'sport = :7 or sport = :77')"
is "the changed configuration is kept beside" "# changed by the operator" "$(tail -n 1 /etc/forkd/forkd.toml.rpmsave)"
rm -r /etc/forkd /etc/systemd/system/forkd@own.service.d # the operator's own
is "nothing else is left" "$before" "$(leftovers)"
