#!/bin/bash
# The unit of docs/PREFORK.md, with the example that is the program there.
. "$(dirname "$0")/lib.sh"
install -m 755 /test/hello /usr/local/bin/hello
unit=/etc/systemd/system/hello.service
awk '/^```/ { inside = 0 } inside; /^```ini/ { inside = 1 }' /test/PREFORK.md >"$unit"
is "the first line of the unit" "# $unit" "$(head -n 1 "$unit")"
systemd-analyze verify "$unit" || fail "systemd-analyze verify"

says() { curl -s --max-time "$LIMIT" http://127.0.0.1:7007/; }
is_of() { [[ $(says) == *" of generation $1, "* ]]; }

exits "systemctl start" 0 systemctl start hello
eventually "a worker answers" is_of 1
counts hello.service 3
: >/run/asking
{
    while [[ -e /run/asking ]]; do says || echo "curl: status $?"; done
} >/run/asked &
asking=$!
for ((generation = 2; generation <= 6; generation++)); do
    exits "systemctl reload" 0 systemctl reload hello
    eventually "workers of generation $generation" is_of "$generation"
    counts hello.service 3
done
rm /run/asking
wait "$asking"
is "requests that failed" 0 "$(grep -c -v '^worker ' /run/asked || true)"
matches "requests were made meanwhile" '^[1-9][0-9]+$' "$(wc -l </run/asked)"
exits "systemctl stop" 0 systemctl stop hello
is "how it ended" success "$(property hello.service Result)"
counts hello.service 0
