#!/bin/sh
# A node in namespaces of its own: `boot`, `slurmd` and `kill` it.
lab=$(dirname "$0")
PATH=$(/bin/cat "$lab/path") SLURM_CONF=$lab/slurm.conf
export PATH SLURM_CONF
node=$2

end() {
    ip netns pids "$node" 2>/dev/null | xargs -r kill -9 2>/dev/null
}

case $1 in
boot)
    set -e
    ip netns add "$node"
    ip link add "h$node" type veth peer name eth0 netns "$node"
    ip link set "h$node" master br0 up
    ip -n "$node" addr add "10.9.0.$((10 + ${node#n}))/24" dev eth0
    ip -n "$node" link set eth0 up
    ip -n "$node" link set lo up
    mkdir -p "$lab/spool/$node"
    ;;
slurmd)
    end
    setsid ip netns exec "$node" unshare -m -u -p -f --kill-child --mount-proc sh -c \
        "hostname $node; exec slurmd -D -N $node -b --conf-server $(cat "$lab/servers")" \
        > "$lab/slurmd.$node.log" 2>&1 < /dev/null &
    ;;
kill)
    end
    ip link del "h$node" 2>/dev/null
    ip netns del "$node" 2>/dev/null
    true
    ;;
esac
