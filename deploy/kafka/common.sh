# shellcheck shell=bash
# Shared by start and stop: folders and messages. Messages go to stderr, because stdout is for the bootstrap address.

report() { printf 'kafka: %s\n' "$1" >&2; }

die() { # message [exit code]
  printf 'kafka: %s\n' "$1" >&2
  exit "${2:-1}"
}

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$1"; }

needs_value() { # the option $1 is followed by its value
  (($# > 1)) || die "$1 wants a value" 2
}

cache_dir() { printf '%s' "${MONITOR_CACHE:-$(cd "$here/../.." && pwd)/.cache}"; }

default_dir() { printf '%s' "$(cache_dir)/kafka/run"; }

running() { # pid file: true if that process runs and is ours. The system may have reused its pid.
  local pid
  [[ -s $1 ]] && pid=$(<"$1") && [[ $(ps -ww -o args= -p "$pid" 2>/dev/null) == *"$(dirname "$1")/server.properties"* ]]
}
