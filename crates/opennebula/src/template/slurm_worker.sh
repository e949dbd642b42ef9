#!/bin/sh
# OpenNebula's SlurmWorker appliance as a node that slurm.conf has.
#
# By itself it starts slurmd with -Z, as a node that slurm.conf does not have; slurmd refuses
# that ("Duplicated NodeName") for a node that it has. And the one of OneSlurm looks for its
# controller in its OneFlow service, where these VMs are not. So the key, the rest of what the
# controller would have told, and slurmd are seen to here. What is between two @ is filled in for each VM.
# A node that lacks any of it starts no slurmd: its jobs would fail.
set -e
servers='@SERVERS@' key='@KEY@' variable='@VARIABLE@'
mounts='@MOUNTS@' sssd='@SSSD@' ipoib='@IPOIB@' prefix='@PREFIX@'

# put FILE OWNER BASE64: something that is readable for its owner alone.
put() {
    mkdir -p "${1%/*}"
    (umask 077 && printf %s "$3" | base64 -d >"$1.new")
    chown "$2:" "$1.new"
    mv "$1.new" "$1"
}

# OneSlurm's image has mounted them by itself, an older one has not.
printf %s "$mounts" | while read -r export target; do
    mountpoint -q "$target" && continue
    mkdir -p "$target"
    mount -t nfs -o sec=sys,_netdev "$export" "$target"
done

if [ -n "$sssd" ]; then
    command -v sssd >/dev/null || { echo "no sssd in this image: it cannot ask LDAP" >&2; exit 1; }
    put /etc/sssd/sssd.conf root "$sssd"
    sed -i -E '/^(passwd|group|shadow):/{/ sss( |$)/!s/$/ sss/}' /etc/nsswitch.conf
    systemctl enable sssd
    systemctl restart sssd
fi

if [ -n "$ipoib" ]; then
    modprobe ib_ipoib || true
    # As OneSlurm does: the address ends as that of the first card.
    own=$(ip -4 -o address show scope global | awk '$2 !~ /^ib/ { sub("/.*", "", $4); print $4; exit }')
    case $prefix in
        8) host=${own#*.} ;;
        16) host=${own#*.*.} ;;
        *) host=${own#*.*.*.} ;;
    esac
    case $host in
        '' | 0 | 0.0 | 0.0.0 | 255 | 255.255 | 255.255.255)
            echo "the address '$own' has no end for one in $ipoib/$prefix" >&2
            exit 1
            ;;
    esac
    card= tries=60
    while [ -z "$card" ]; do
        for found in /sys/class/net/ib*; do
            [ -e "$found" ] && card=${found##*/} && break
        done
        tries=$((tries - 1))
        [ -n "$card" ] || [ "$tries" -gt 0 ] || { echo "no InfiniBand card ib* in this VM" >&2; exit 1; }
        [ -n "$card" ] || sleep 1
    done
    ip address replace "$ipoib.$host/$prefix" dev "$card"
    ip link set "$card" up
fi

environment=
if [ -n "$variable" ]; then
    # slurmd needs Slurm's own key before it has a slurm.conf beside which to look for it.
    put /etc/slurm/slurm.key slurm "$key"
    environment="Environment=$variable=/etc/slurm/slurm.key"
elif [ -n "$key" ]; then
    put /etc/munge/munge.key munge "$key"
    systemctl enable munge
    systemctl restart munge
fi
mkdir -p /etc/systemd/system/slurmd.service.d
cat >/etc/systemd/system/slurmd.service.d/thiao.conf <<END
[Service]
$environment
ExecStart=
ExecStart=/usr/sbin/slurmd --systemd --conf-server $servers -N %l
END
systemctl daemon-reload
systemctl restart slurmd
