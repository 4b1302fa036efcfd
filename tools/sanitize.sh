#!/usr/bin/env bash
# The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: builds csrc/ with both into build/sanitize, beside
# a copy of the package, and runs the tests of the kernels on it, which take every instruction set of this processor in
# turn, and those of onnxruntime's operators.
# Whatever is found is printed and ends the script with an error. Takes about four minutes on two cores.
# `tools/sanitize.sh compile` only builds.
# Needs GCC with its libasan and libubsan (Debian and Ubuntu: they come with g++). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
compiler=${CXX:-g++}

libraries=()
for name in libasan libubsan libstdc++; do  # the last one, too: libasan looks for its __cxa_throw before Python loads it
  library=$("$compiler" -print-file-name=$name.so) || fail "$compiler does not run; tools/sanitize.sh needs GCC's g++"
  [ -e "$library" ] || fail "$compiler has no $name.so; install GCC's sanitizers (Fedora: dnf install libasan libubsan)"
  libraries+=("$library")
done
set_up "[dev]"

# -O1: at -O3 the checks take ten minutes to compile. -g1: function names and line numbers.
say "compiling csrc/ with the sanitizers into build/sanitize"
objects=$(dirname "$PYTHON_IN_VENV")/../hw4fast-sanitize/$("$compiler" -dumpfullversion)  # kept for the next checkout
flags="-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all"
CXX=$compiler CFLAGS=$flags CXXFLAGS=$flags HW4FAST_OBJECTS=$objects \
  "$PYTHON_IN_VENV" setup.py -q build --build-lib build/sanitize
grep -q __asan_report build/sanitize/hw4fast/_C.*.so || fail "the flags did not arrive: build/sanitize has no checks"
if [ "${1:-}" = compile ]; then exit; fi

# No leak detection: CPython frees little at its end. An abort lets Python's faulthandler name the test.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1
export HW4FAST_TRIAL_MB=999999999  # the checks' own memory counts as a process's
export LD_PRELOAD="${libraries[*]}"
export PYTHONSAFEPATH=1 PYTHONPATH=$PWD/build/sanitize:$PWD  # the copy, before the folder that Python starts in
loaded=$("$PYTHON_IN_VENV" -c 'import hw4fast._C as C; print(C.__file__)')
case $loaded in "$PWD"/build/sanitize/*) ;; *) fail "the tests would run on $loaded" ;; esac
say "the kernels' tests on $loaded"
# The reports go past Python to the terminal: pytest must not keep them. They are looked for, too: a process that fails
# while it ends has told pytest already that all is well.
log=build/sanitize.log code=0
# which don't run csrc/, or are about numbers and not memory
others="not numba and not references_agree and not correlated and not as_exact_as_of_few"
run_tests -x --import-mode=append --capture=sys -p no:cacheprovider -k "$others" "$@" tests/kernels \
  tests/exporter/test_fuse.py 2>&1 |
  tee "$log" || code=$?
unset LD_PRELOAD PYTHONPATH
if grep -qE "runtime error:|ERROR: AddressSanitizer" "$log"; then fail "the sanitizers found something"; fi
exit $code
