# shellcheck shell=bash disable=SC2154  # SC2154: root, python and uv are the caller's
# Shared by deploy/demo and tests/run (sourced, not run): find Python 3.11+ and uv, and make the environment, without
# touching the system.
# The caller sets `root`, the project's folder, and stores the results in `python` and `uv`. An error is printed on stderr and
# ends the caller.

die() {
  printf '%s\n' "$@" >&2
  exit 1
}

find_python() { # prints the first interpreter that is new enough
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  if uv python find '>=3.11' 2>/dev/null; then return; fi
  die "monitor needs Python 3.11 or newer, and there is none on the PATH (python3: $(python3 --version 2>/dev/null || echo missing))." \
    "  Debian, Ubuntu:  apt-get install python3 python3-venv      (Debian 12, Ubuntu 24.04 or newer)" \
    "  Fedora:          dnf install python3.12" \
    "  macOS:           brew install python@3.12" \
    "  elsewhere:       with uv installed, 'uv python install 3.12'"
}

find_uv() { # $1 = python; prints a uv that works, installing one under .cache/uv if there is none
  local python=$1 home=${MONITOR_CACHE:-$root/.cache}/uv log
  if uv --version >/dev/null 2>&1; then
    command -v uv
    return
  fi
  if ! "$home/bin/uv" --version >/dev/null 2>&1; then
    printf 'Installing uv, the package manager, into %s …\n' "$home" >&2
    mkdir -p "$home"
    log=$home/install.log
    # --target works without a virtual environment, and where the system's Python must not be changed.
    "$python" -P -m pip --version >/dev/null 2>&1 ||
      die "uv is not installed, and $python has no pip to install it with." \
        "  Debian, Ubuntu:  apt-get install python3-pip" \
        "  or install uv yourself, put it on the PATH, and try again"
    "$python" -P -m pip install --quiet --disable-pip-version-check --target "$home" --upgrade uv >"$log" 2>&1 ||
      die "$(tail -n 5 "$log")" "uv could not be installed (the reason stands above; the whole log: $log)." \
        "  Is a Python package index reachable? Behind a proxy, set HTTPS_PROXY; with a mirror, PIP_INDEX_URL and UV_DEFAULT_INDEX."
  fi
  printf '%s' "$home/bin/uv"
}

sync_environment() { # uv's options…: bring .venv up to date, its byte code too
  # A working environment is kept: uv would replace one that was created with another path of the same interpreter.
  local interpreter=(--python "$python")
  if "$root/.venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then interpreter=(); fi
  "$uv" sync ${interpreter[@]+"${interpreter[@]}"} "$@"
  # Compile thousands of files now. At the first import this would slow down the first start, and every start with
  # PYTHONDONTWRITEBYTECODE. Only after a change, because uv compiles all files, changed or not.
  local stamp=$root/.venv/.compiled installed
  installed=$(cd "$root/.venv" && printf '%s\n' lib/python*/site-packages/*.dist-info | cksum)
  if [[ $(cat "$stamp" 2>/dev/null) != "$installed" ]]; then
    "$uv" sync --compile-bytecode "$@"
    printf '%s' "$installed" >"$stamp"
  fi
}

has_nvidia_driver() {
  [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1
}

has_cpu_build() { # of PyTorch, in .venv
  compgen -G "$root/.venv/lib/python*/site-packages/torch-*+cpu.dist-info" >/dev/null
}

sync_cpu_environment() { # [--quiet] uv's options…: like sync_environment, with PyTorch's CPU build. Fails without its index
  local quiet=() work=${MONITOR_CACHE:-$root/.cache}
  if [[ $1 == --quiet ]]; then quiet=(--quiet) && shift; fi
  local install=("$uv" pip install ${quiet[@]+"${quiet[@]}"} --python "$root/.venv")
  local export=("$uv" export --quiet --frozen --no-emit-project --no-annotate --no-header)
  mkdir -p "$work"
  "$root/.venv/bin/python" -c '' 2>/dev/null || "$uv" venv --quiet --python "$python" "$root/.venv" || return
  # As in the Dockerfile: torch's version and those of its dependencies are the lock file's. Only its own wheels are not
  # checked against it, and CUDA's packages are left out.
  (cd "$root" && "${export[@]}" --no-hashes "$@") | grep -vE '^(nvidia-|cuda-|triton)' >"$work/versions.txt" || return
  "${install[@]}" --torch-backend=cpu --constraint "$work/versions.txt" torch || return
  (cd "$root" && "${export[@]}" --prune torch "$@") >"$work/locked.txt" || return
  "${install[@]}" --require-hashes --compile-bytecode -r "$work/locked.txt" || return
  "${install[@]}" --no-deps --editable "$root"
}
