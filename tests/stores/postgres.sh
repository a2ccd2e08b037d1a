#!/usr/bin/env bash
# A PostgreSQL server for the tests, on a socket and a port of its own, in a scratch folder.
#
# Prints its URL, serves until its standard input is closed, and so ends with whoever started it.
# Exits with 3 when there is no PostgreSQL here (`make postgres` installs Debian's).
#
# Usage: tests/stores/postgres.sh FOLDER [SETTING=VALUE...]
set -euo pipefail

folder=$1
# The last one wins, so these come after our own.
settings=()
for setting in "${@:2}"; do settings+=(-c "$setting"); done
for candidate in "$(dirname "$(command -v initdb || echo /none/initdb)")" /usr/lib/postgresql/*/bin; do
  [[ -x $candidate/initdb ]] && bin=$candidate
done
[[ -n ${bin:-} ]] || exit 3

# PostgreSQL refuses to run as root: then it runs as its own user, or as nobody.
as=()
if ((EUID == 0)); then
  user=$(id -un postgres 2>/dev/null || echo nobody)
  as=(runuser -u "$user" --)
  chown "$user" "$folder"
fi

cd "$folder"
"${as[@]}" "$bin/initdb" --pgdata="$folder/data" --username=tests --auth=trust --no-sync --encoding=UTF8 >initdb.log
# TLS, so that the tests can see certificates checked: an authority of our own, and a certificate from it.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tests -keyout ca.key -out ca.crt 2>openssl.log
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr 2>>openssl.log
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt \
  -extfile <(echo subjectAltName=DNS:localhost) 2>>openssl.log
# The server insists that nobody else can read its key.
chmod 600 server.key
[[ ${#as[@]} -eq 0 ]] || chown "$user" server.key server.crt

# Below those that systems give to whoever wants any port: no test's listener takes it before the server does.
port=$(
  python3 <<'END'
import contextlib, random, socket
port = None
while port is None:
    with socket.socket() as free, contextlib.suppress(OSError):
        free.bind(("127.0.0.1", random.randrange(20000, 30000)))
        port = free.getsockname()[1]
print(port)
END
)
# The tests kill the service, never this server: it need not survive a loss of power.
"${as[@]}" "$bin/postgres" -D "$folder/data" -k "$folder" -p "$port" -c listen_addresses=127.0.0.1 -c fsync=off \
  -c max_connections=200 -c ssl=on -c ssl_cert_file="$folder/server.crt" -c ssl_key_file="$folder/server.key" \
  "${settings[@]}" >postgres.log 2>&1 </dev/null &
trap '"${as[@]}" "$bin/pg_ctl" stop --silent --mode=immediate --pgdata="$folder/data" || true; rm -rf "$folder"' EXIT
for _ in $(seq 300); do
  "$bin/pg_isready" --quiet --host=127.0.0.1 --port="$port" && break
  sleep 0.1
done
echo "postgres://tests@localhost:$port"
cat >/dev/null
