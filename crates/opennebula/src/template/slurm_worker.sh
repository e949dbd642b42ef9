#!/bin/sh
# OpenNebula's SlurmWorker appliance as a node that slurm.conf has.
#
# By itself it starts slurmd with -Z, as a node that slurm.conf does not have; slurmd refuses
# that ("Duplicated NodeName") for a node that it has. And the one of OneSlurm looks for its
# controller in its OneFlow service, where these VMs are not. So the key and slurmd are seen
# to here. What is between two @ is filled in for each VM.
servers='@SERVERS@' key='@KEY@' variable='@VARIABLE@'

# put FILE OWNER: the key, readable for its owner alone.
put() {
    mkdir -p "${1%/*}"
    (umask 077 && printf %s "$key" | base64 -d >"$1.new")
    chown "$2:" "$1.new"
    mv "$1.new" "$1"
}

environment=
if [ -n "$variable" ]; then
    # slurmd needs Slurm's own key before it has a slurm.conf beside which to look for it.
    put /etc/slurm/slurm.key slurm
    environment="Environment=$variable=/etc/slurm/slurm.key"
elif [ -n "$key" ]; then
    put /etc/munge/munge.key munge
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
