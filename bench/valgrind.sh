#!/usr/bin/env bash
# Runs valgrind: this machine's, else, on Debian and Ubuntu, their own, fetched once into .tools without installing
# anything. Exits with 3 when there is none.
#
# Usage: bench/valgrind.sh ARGUMENT...
set -euo pipefail

tools=$(cd "$(dirname "$0")/.." && pwd)/.tools/valgrind
fetched=$tools/usr/bin/valgrind

# From where the machine gets its packages, with lists in a folder of their own: those of the machine may be
# missing, as in most images, and root is not needed.
fetch() (
  command -v apt-get dpkg-deb >/dev/null || exit 1
  mkdir -p "$tools"/lists/partial "$tools"/cache/archives/partial
  cd "$tools"
  options=(-o "Dir::State::lists=$tools/lists" -o "Dir::Cache=$tools/cache" -o APT::Sandbox::User=
    -o Acquire::Languages=none)
  apt-get -qq "${options[@]}" update && apt-get -qq "${options[@]}" download valgrind || exit 1
  dpkg-deb -x valgrind_*.deb .
  rm -r lists cache valgrind_*.deb
) >&2

if command -v valgrind >/dev/null; then
  exec valgrind "$@"
elif [[ -x $fetched ]] || fetch; then
  # Its tools are not where it was built to find them.
  VALGRIND_LIB=$(dirname "$(find "$tools/usr" -name 'callgrind-*' -print -quit)") exec "$fetched" "$@"
fi
exit 3
