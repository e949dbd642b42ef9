#!/bin/sh
# The appliance starts slurmd with -Z, as a node that slurm.conf does not have; slurmd
# refuses that ("Duplicated NodeName") for a node that it has. This starts it as such.
mkdir -p /etc/systemd/system/slurmd.service.d
cat > /etc/systemd/system/slurmd.service.d/thiao.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/sbin/slurmd --systemd --conf-server slurm-one-controller:6817 -N %l
END
systemctl daemon-reload
systemctl restart slurmd
