#!/usr/bin/env bash
# Shows both targets on this machine, without AWS: starts the container's binary, and the function's behind a local
# gateway; loads both with Locust for a minute; profiles both; simulates a day with what that measured; and writes one
# page about it, target/demo/report.html.
#
# Usage: make demo
#        DEMO_SECONDS=60 DEMO_USERS=40: how long, and how many users each target has.
#        DEMO_DELAY=20ms: what an addition waits for, as for a database. DEMO_TRAFFIC=diurnal:5..80: the day.
#        DEMO_PORT=9100: the container's port, and the function's is the next; any two free ones, if not given.
#        DEMO_FOLDER=target/demo: where the page, the logs and the figures go.
#        MATH_SERVICE_BIN=… LAMBDA_BIN=… GATEWAY_BIN=… MATH_LAB_BIN=…: what to run instead of what cargo builds.
#
# Needs Rust, Python 3 and curl. Ends all that it started, also after Ctrl-C.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

seconds=${DEMO_SECONDS:-60}
users=${DEMO_USERS:-40}
delay=${DEMO_DELAY:-20ms}
traffic=${DEMO_TRAFFIC:-diurnal:5..80}
port=${DEMO_PORT:-0}
folder=${DEMO_FOLDER:-target/demo}
built=${CARGO_TARGET_DIR:-target}/release
server=${MATH_SERVICE_BIN:-$built/math-service}
function=${LAMBDA_BIN:-$built/lambda}
gateway=${GATEWAY_BIN:-$built/examples/gateway}
lab=${MATH_LAB_BIN:-$built/math-lab}
locust=${LOCUST:-.tools/venv/bin/locust}
page=$folder/report.html
processes=4
# Nothing leaves this machine, whatever the way out of it.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

# Whoever was started and not seen to end: names, and their process groups.
names=()
groups=()
servers=()

trap 'exit 129' HUP

# Takes the place of the setup scripts' last word: here everything ends.
finished() {
  set +em
  trap '' HUP INT TERM
  rm -f "$errors"
  # bash says of each job how it ended.
  end_all 2>/dev/null
  case $1:$step in
    0:* | 2:) ;;
    129:* | 130:* | 143:*) echo "Interrupted while ${step:-starting}. Nothing of it runs any more; make demo begins anew." >&2 ;;
    *) echo "Failed while ${step:-starting}. Nothing of it runs any more; its logs are in $folder." >&2 ;;
  esac
}

# A group's id is that of its first process, which bash knows of before the next command could note it.
end_all() {
  local group all deadline=$((SECONDS + 10))
  all="${groups[*]-} $(jobs -p)"
  for group in $all; do kill -TERM -- "-$group" 2>/dev/null; done
  for group in $all; do
    while kill -0 -- "-$group" 2>/dev/null; do
      # The gateway gives its functions four seconds at most.
      if ((SECONDS >= deadline)); then
        kill -KILL -- "-$group" 2>/dev/null
        break
      fi
      sleep 0.05
    done
  done
}

# begin NAME COMMAND...: in a process group of its own, so that Ctrl-C reaches it in the order of this script, with its
# output in NAME.log (standard output in `output`, if that is set).
begin() {
  local name=$1
  shift
  # Before anybody reads it: another run may have left one.
  : >"$folder/$name.log"
  set -m
  if [[ -n ${output:-} ]]; then
    "$@" </dev/null >"$output" 2>"$folder/$name.log" &
  else
    "$@" </dev/null >"$folder/$name.log" 2>&1 &
  fi
  set +m
  names+=("$name")
  groups+=("$!")
}

runs() { kill -0 "$1" 2>/dev/null; }

# last_lines NAME
last_lines() {
  echo "--- the last lines of $folder/$1.log" >&2
  tail -n 15 "$folder/$1.log" >&2
}

# A load test against a server that is gone would measure nothing.
servers_run() {
  local index
  for index in ${servers[@]+"${servers[@]}"}; do
    runs "${groups[index]}" && continue
    last_lines "${names[index]}"
    fail "${names[index]} ended by itself"
  done
}

# complete LIMIT_SECONDS HOW_FAR...: waits for all that was begun and is no server; tells every ten seconds how far it is.
complete() {
  local deadline=$(($1 + SECONDS)) limit=$1 began=$SECONDS told=$SECONDS index status
  shift
  for ((index = ${#servers[@]}; index < ${#groups[@]}; index++)); do
    while runs "${groups[index]}"; do
      servers_run
      if ((SECONDS - told >= 10)); then
        told=$SECONDS
        printf '    %s s: ' "$((SECONDS - began))"
        "$@"
      fi
      ((SECONDS < deadline)) || { last_lines "${names[index]}"; fail "${names[index]} takes longer than $limit s"; }
      sleep 0.1
    done
    status=0
    wait "${groups[index]}" || status=$?
    ((status == 0)) || { last_lines "${names[index]}"; fail "${names[index]} failed with status $status"; }
  done
  # An id that is free again may become somebody else's.
  names=(${names[@]+"${names[@]:0:${#servers[@]}}"})
  groups=(${groups[@]+"${groups[@]:0:${#servers[@]}}"})
}

# From here on no $(…) in this shell: bash 5.2 fails to read a trap's command that falls into one.

# latest NAME: where it is, in its own words.
latest() { tail -n 1 "$folder/$1.log" | cut -c 1-90; }

# How many Locust has written down, without the line of names.
answers() {
  awk -v container="$folder/container_requests.csv" 'FNR > 1 { if (FILENAME == container) one++; else other++ }
    END { printf "%d answers of the container, %d of the function\n", one, other }' "$folder/container_requests.csv" "$folder/lambda_requests.csv"
}

# listening NAME PATTERN PORT: waits for the line in which a server says its port, and gives that in `found`.
listening() {
  local deadline=$((SECONDS + 60))
  servers+=("$((${#groups[@]} - 1))")
  found=''
  until sed -n "s/$2/\1/p" "$folder/$1.log" >"$folder/port" && read -r found <"$folder/port"; do
    ! grep -qi 'address.* in use' "$folder/$1.log" ||
      fail "port $3 is taken; DEMO_PORT=… takes another one and its next, and no DEMO_PORT any two that are free"
    servers_run
    ((SECONDS < deadline)) || { last_lines "$1"; fail "$1 does not listen"; }
    sleep 0.05
  done
}

write_page() {
  local cpu cores server_is='' function_is=''
  cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
  cores=$(getconf _NPROCESSORS_ONLN)
  [[ -n ${MATH_SERVICE_BIN:-} ]] || server_is='the binary that ships, '
  [[ -n ${LAMBDA_BIN:-} ]] || function_is='with the features that ship, '
  exec "$lab" page "$page" --eks "$folder/container" --lambda "$folder/lambda" --reports "$folder/lambda.log" \
    --profile "$folder/container.json" --lambda-profile "$folder/lambda.json" --traffic "$traffic" --duration 1d \
    --fact "Machine=$cores cores${cpu:+, $cpu}, $(uname -sm)" \
    --fact "When=$(date '+%Y-%m-%d %H:%M %Z')" \
    --fact "Load=$users users of Locust on each target for $seconds s, both at the same time; each adds two numbers, thinks for a second or two, and adds again" \
    --fact "Work=an addition that waits $delay, as for a database" \
    --fact "Container=$("$server" --version), ${server_is}one process" \
    --fact "Function=${function_is}behind a local gateway that sends the events of an HTTP API; $processes processes, started before the first request, each busy with one at a time"
}

# phase WORDS...: a step, and how long the one before took.
began=$SECONDS
phase() {
  [[ -z $step ]] || say "    done after $((SECONDS - began)) s"
  began=$SECONDS
  step "$@"
}

help_asked "$@"
[[ $seconds =~ ^[1-9][0-9]{0,3}$ ]] || fail "DEMO_SECONDS=$seconds: not 1 to 9999"
[[ $users =~ ^[1-9][0-9]{0,3}$ ]] || fail "DEMO_USERS=$users: not 1 to 9999"
[[ $port =~ ^(0|[1-9][0-9]{0,4})$ && $port -lt 65535 ]] || fail "DEMO_PORT=$port: no port that has a next one, and not 0 for any"
mkdir -p "$folder"
rm -f "$page"

need curl
phase 'building, which takes minutes the first time'
if [[ -z ${MATH_SERVICE_BIN:-} || -z ${LAMBDA_BIN:-} || -z ${GATEWAY_BIN:-} || -z ${MATH_LAB_BIN:-} ]]; then
  need cargo
  begin build make --no-print-directory demo-build
  complete 3600 latest build
fi
for program in "$server" "$function" "$gateway" "$lab"; do
  [[ -x $program ]] || fail "$program is no program"
done
# Before all the work whose last step it is.
"$lab" simulate lambda --traffic "$traffic" --duration 1 >/dev/null || fail "DEMO_TRAFFIC=$traffic: see $lab compare --help"
if [[ -z ${LOCUST:-} && ! -x $locust ]]; then
  phase 'installing Locust, with the other tools of the tests, into .tools'
  need python3
  begin tools make --no-print-directory tools
  complete 1200 latest tools
fi
command -v "$locust" >/dev/null || fail "there is no Locust at $locust; without LOCUST=… it is installed into .tools"

phase 'starting both targets'
# Nothing of this shell's settings: the demo shows what ships.
begin container env -i PATH="$PATH" HOST=127.0.0.1 PORT="$port" ADD_DELAY="$delay" DRAIN_TIMEOUT=2s "$server"
listening container '.*"event":"Listening","address":"127.0.0.1:\([0-9]*\)".*' "$port"
container=http://127.0.0.1:$found
# One that is busy takes no second request: more of them than are busy at once, as far as chance goes.
begin lambda "$gateway" --port "$((port ? port + 1 : 0))" --processes "$processes" --reports --env "ADD_DELAY=$delay" "$function"
listening lambda 'gateway: http:\/\/127.0.0.1:\([0-9]*\) .*' "$((port + 1))"
lambda=http://127.0.0.1:$found
for url in "$container" "$lambda"; do
  adds "$url" || fail "$url does not add 10 and 5"
done
say "    the container's binary on $container, the function's behind a gateway on $lambda"

phase "loading both, each with $users users for $seconds s"
for run in container lambda; do
  : >"$folder/${run}_requests.csv"
  begin "locust-$run" "$locust" --locustfile locustfile.py --host "${!run}" --headless --only-summary --users "$users" \
    --spawn-rate "$users" --run-time "${seconds}s" --stop-timeout 10 --exit-code-on-error 0 --requests-csv "$folder/${run}_requests.csv"
done
complete $((seconds + 60)) answers
printf '    '
answers

phase 'profiling the container by its metrics'
output=$folder/container.json begin profile-container "$lab" profile "$container" --requests 20000 --concurrency 64 --idle 2 \
  --time $((seconds < 15 ? seconds : 15))
complete 120 latest profile-container

phase 'profiling the function by its log'
output=$folder/lambda.json begin profile-lambda "$lab" profile --reports "$folder/lambda.log" --container "$folder/container.json"
complete 60 latest profile-lambda

phase "simulating a day of $traffic with both profiles"
output=$folder/comparison.txt begin page write_page
complete 60 latest page
sed 's/^\(.\)/    \1/' "$folder/comparison.txt"
say "    done after $((SECONDS - began)) s"
say
say "The page about it, after $SECONDS s in all: $page"
step=''
