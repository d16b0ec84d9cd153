#!/bin/sh
# Attacks a pair of servers with their default limits, from a hundred addresses in another network
# namespace, with each kind of `herd-load abuse`. Limits by address do not hold for loopback, so
# this is how to see what they do. It needs root and `ip`. It removes what it makes.
#
#   cargo build --release --bins && sudo sh tools/load/abuse-in-namespaces.sh [KIND…]
set -eu
cd "$(dirname "$0")/../.."
bin=target/release
kinds=${*:-lines unread faults names places links}
servers=herd-abuse-servers-$$ strangers=herd-abuse-strangers-$$
dir=$(mktemp -d)
pids=

clean() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait
    ip netns delete "$servers" 2>/dev/null || true
    ip netns delete "$strangers" 2>/dev/null || true
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT TERM

ip netns add "$servers"
ip netns add "$strangers"
ip link add eth0 netns "$servers" type veth peer name eth0 netns "$strangers"
# Alice is at 10.9.0.1, Bob, who dials her, at 10.9.1.1. The polite clients and the operator come
# from 10.9.2.1, the attack from 10.9.3.1 to 10.9.3.100.
for address in 10.9.0.1 10.9.1.1; do ip -n "$servers" address add "$address/16" dev eth0; done
for address in 10.9.2.1 $(seq -f 10.9.3.%g 1 100); do
    ip -n "$strangers" address add "$address/16" dev eth0
done
for ns in "$servers" "$strangers"; do
    ip -n "$ns" link set lo up
    ip -n "$ns" link set eth0 up
done

cat >"$dir/herd.toml" <<END
links = [["Bob", "Alice"]]
secret_file = "herd.secret"
[[servers]]
name = "Alice"
clients = "10.9.0.1:10000"
peers = "10.9.0.1:11000"
[[servers]]
name = "Bob"
clients = "10.9.1.1:10000"
peers = "10.9.1.1:11000"
END
(umask 077 && echo 0123456789abcdef0123456789abcdef >"$dir/herd.secret")

status=0
for kind in $kinds; do
    pids=
    rm -rf "$dir/data" && mkdir -m 700 "$dir/data" "$dir/data/Alice" "$dir/data/Bob"
    ip netns exec "$servers" "$bin/herd-places" --quiet --ca-file "$dir/ca.pem" >"$dir/places.log" 2>&1 &
    pids="$pids $!"
    until [ -s "$dir/places.log" ]; do sleep 0.1; done
    for name in Bob Alice; do
        HERD_PLACES_KEY=test-key ip netns exec "$servers" "$bin/herd-mio" "$name" --config "$dir/herd.toml" \
            --places-url https://localhost:10443 --places-ca "$dir/ca.pem" \
            --data-dir "$dir/data/$name" --log-file "$dir/$name.log" 2>"$dir/$name.err" &
        pids="$pids $!"
        alice=$!
    done
    until grep -q 'neighbour Bob .*: linked' "$dir/Alice.log" 2>/dev/null; do
        kill -0 "$alice" || { cat "$dir"/*.err "$dir/places.log" >&2; exit 1; }
        sleep 0.1
    done
    echo "=== $kind"
    whatsat=
    [ "$kind" != places ] || whatsat=--polite-whatsat
    ip netns exec "$strangers" "$bin/herd-load" abuse "$kind" Alice --config "$dir/herd.toml" \
        --from 10.9.3.1-10.9.3.100 --polite-from 10.9.2.1 $whatsat --pid "$alice" \
        --log-file "$dir/Alice.log" --data-dir "$dir/data/Alice" || status=1
    for pid in $pids; do kill "$pid" && wait "$pid" || true; done
    rm -f "$dir"/*.log "$dir/ca.pem"
done
exit $status
