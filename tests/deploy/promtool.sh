#!/usr/bin/env bash
# Runs promtool: this machine's, else, on Debian and Ubuntu, their own, fetched once into .tools without installing
# anything. Exits with 3 when there is none.
#
# Usage: tests/deploy/promtool.sh ARGUMENT...
set -euo pipefail

tools=$(cd "$(dirname "$0")/../.." && pwd)/.tools/prometheus
fetched=$tools/usr/bin/promtool

# From where the machine gets its packages, with lists in a folder of their own: those of the machine may be
# missing, as in most images, and root is not needed.
fetch() (
  command -v apt-get dpkg-deb >/dev/null || exit 1
  mkdir -p "$tools"/lists/partial "$tools"/cache/archives/partial
  cd "$tools"
  options=(-o "Dir::State::lists=$tools/lists" -o "Dir::Cache=$tools/cache" -o APT::Sandbox::User=
    -o Acquire::Languages=none)
  apt-get -qq "${options[@]}" update && apt-get -qq "${options[@]}" download prometheus || exit 1
  # The one program, of the package's 95 MB.
  dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/promtool
  rm -r lists cache prometheus_*.deb
) >&2

if command -v promtool >/dev/null; then
  exec promtool "$@"
elif [[ -x $fetched ]] || fetch; then
  exec "$fetched" "$@"
fi
exit 3
