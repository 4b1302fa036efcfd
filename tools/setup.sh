# Sourced by demo.sh, test.sh and sanitize.sh, from the repository's root: makes a virtual environment and installs the
# package into it, in place. Leaves its python in $PYTHON_IN_VENV.
#   HW4FAST_VENV   where it goes (default: .venv)
#   PYTHON         which Python makes it (default: python3; 3.11 or newer)
#   HW4FAST_CUDA   1: with the CUDA kernels (minutes: setup.py); default: where nvidia-smi finds a GPU

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

set_up() {  # $1: the extras to install, such as "[dev]", or nothing
  local venv=${HW4FAST_VENV:-.venv} python=${PYTHON:-python3}
  command -v "$python" >/dev/null || fail "$python is not installed; hw4fast needs Python 3.11 or newer"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; set PYTHON to a Python 3.11 or newer"
  command -v c++ >/dev/null || command -v "${CXX:-g++}" >/dev/null ||
    fail "there is no C++ compiler; on Debian or Ubuntu: apt-get install g++ python3-dev"
  PYTHON_IN_VENV=$venv/bin/python
  if [ -z "${HW4FAST_CUDA:-}" ] && ! nvidia-smi -L >/dev/null 2>&1; then export HW4FAST_CUDA=0; fi
  if ! [ -x "$PYTHON_IN_VENV" ] || ! "$PYTHON_IN_VENV" -m pip --version >/dev/null 2>&1; then
    say "making the virtual environment $venv"
    "$python" -m venv "$venv" || fail "python -m venv failed; on Debian or Ubuntu: apt-get install python3-venv"
  fi
  bring_up_to_date "$1" "$venv" 9>"$venv/hw4fast-lock"
}

bring_up_to_date() {  # $1: the extras; $2: the virtual environment, into which another shell may be installing: 9 waits
  local venv=$2 wanted
  if command -v flock >/dev/null; then flock 9; fi
  # editable_mode=compat: a path, which is found from any folder; the other mode's hook loses to a folder named hw4fast.
  # The dependencies are large (torch with its CUDA libraries): install them only when their files have changed.
  wanted=$(cat pyproject.toml constraints.txt | cksum)-$1
  if [ "$(cat "$venv/hw4fast-installed" 2>/dev/null)" != "$wanted" ]; then
    say "installing the dependencies as constraints.txt pins them (about 7 GB on disk; minutes, by your network)"
    pip_install -c constraints.txt -e ".$1"
    printf '%s' "$wanted" >"$venv/hw4fast-installed"
  elif [ "$(cat "$venv/hw4fast-compiled" 2>/dev/null)" = "$(compiled)" ]; then
    return  # pip would compile all of it again
  else
    say "compiling csrc/ into hw4fast._C"
    pip_install --no-deps -e .
  fi
  compiled >"$venv/hw4fast-compiled"
}

pip_install() {  # what was compiled stays in the virtual environment, and of that the next time only what has changed is
  HW4FAST_OBJECTS=$(dirname "$PYTHON_IN_VENV")/../hw4fast-objects "$PYTHON_IN_VENV" -m pip install -q \
    --disable-pip-version-check --config-settings editable_mode=compat "$@"
}

compiled() {  # what is compiled here, and of what: another folder, source, flag or library gives another line
  local flags="${CXX:-}|${CFLAGS:-}|${CXXFLAGS:-}|${LDFLAGS:-}|${HW4FAST_CUDA:-}|${HW4FAST_CUDA_ARCHS:-}"
  echo "$PWD|$flags|$(cat setup.py pyproject.toml csrc/* | cksum)|$(cat hw4fast/_*.so 2>/dev/null | cksum)"
}

run_tests() {  # files of tests go to workers, one more than cores: some wait for processes that they have started
  local workers
  workers=$("$PYTHON_IN_VENV" -c 'import os; print(min(8, (os.cpu_count() or 1) + 1))')
  # torch's threads that wait would take the others' cores
  OMP_WAIT_POLICY=passive "$PYTHON_IN_VENV" -m pytest -q -n "$workers" --max-worker-restart 0 \
    --dist loadfile --no-loadscope-reorder "$@"
}
