#!/usr/bin/env bash
# Renders a kustomization: with the kustomize or kubectl of this machine, else, on Debian, with Debian's own
# kustomize, fetched once into .tools without installing anything. Exits with 3 when there is none.
#
# Usage: tests/deploy/kustomize.sh FOLDER
set -euo pipefail

tools=$(cd "$(dirname "$0")/../.." && pwd)/.tools/kustomize
fetched=$tools/usr/bin/kustomize

# kubectl before 1.27 carries a kustomize that is too old for these files.
recent_kubectl() {
  local minor
  minor=$(kubectl version --client -o json 2>/dev/null | sed -n 's/.*"minor": "\([0-9]*\).*/\1/p' | head -n 1)
  ((${minor:-0} >= 27))
}

# Debian has packaged kustomize since version 13; the program runs on 12 as well. The package lists go into a
# folder of their own, so neither the machine's sources nor its lists change, and root is not needed.
fetch() (
  command -v apt-get dpkg-deb >/dev/null && [[ -r /usr/share/keyrings/debian-archive-keyring.gpg ]] || exit 1
  # shellcheck disable=SC2016  # apt expands $(SITE), not the shell.
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
  [[ -n $mirror ]] || exit 1
  mkdir -p "$tools"/lists/partial "$tools"/cache/archives/partial
  cd "$tools"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >sources.list
  options=(-o "Dir::Etc::sourcelist=$tools/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$tools/lists"
    -o "Dir::Cache=$tools/cache" -o APT::Sandbox::User= -o Acquire::Languages=none)
  apt-get -qq "${options[@]}" update && apt-get -qq "${options[@]}" download kustomize || exit 1
  dpkg-deb -x kustomize_*.deb .
  rm -r lists cache kustomize_*.deb
) >&2

if command -v kustomize >/dev/null; then
  exec kustomize build "$1"
elif command -v kubectl >/dev/null && recent_kubectl; then
  exec kubectl kustomize "$1"
elif [[ -x $fetched ]] || fetch; then
  exec "$fetched" build "$1"
fi
exit 3
