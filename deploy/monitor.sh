#!/bin/sh
# /usr/local/bin/monitor on a machine with the systemd service: commands get the daemon's configuration and run as its user.
set -eu
if [ "$(id -un)" != monitor ]; then
  exec sudo -H -u monitor "$0" "$@"
fi
MONITOR_CONFIG=/etc/monitor/monitor.toml
set -a
[ ! -r /etc/monitor/monitor.env ] || . /etc/monitor/monitor.env
set +a
export MONITOR_CONFIG
exec /opt/monitor/bin/monitor "$@"
