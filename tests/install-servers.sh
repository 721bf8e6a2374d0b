#!/bin/sh
# Installs what the tests run against, and what CI measures with, on Debian and its like: only what is missing, and quickly
# when nothing is.
# Packages are installed as root, or through sudo where it asks for no password; otherwise this says what to run.
set -eu
cd "$(dirname "$0")"

missing=""
need() { # need PROGRAM PACKAGE...
    program=$1
    shift
    command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] || missing="$missing $*"
}
need java default-jre-headless
need mvn maven
need influxd influxdb
need victoria-metrics victoria-metrics
need kcat kafkacat
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
need cc gcc
need c++ g++
need make make
need perl perl
need valgrind valgrind
need curl curl

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        as_root=""
    elif sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        echo "these packages are missing; install them and run this again:" >&2
        echo "    sudo apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "no apt-get here; install by your system's means:$missing" >&2
        exit 1
    fi
    echo "installing$missing"
    # The tests start servers of their own: a package must not start its service. One that ran before is left alone.
    policy=/usr/sbin/policy-rc.d
    added=""
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
        added=yes
    fi
    [ -z "$added" ] || trap '$as_root rm -f "$policy"' EXIT INT TERM
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086 # one word per package
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi

# Kafka's jars, where the tests look for them.
target=${CARGO_TARGET_DIR:-$(cd .. && pwd)/target}
kafka=$target/servers/kafka-4.1.0
if [ ! -d "$kafka" ]; then
    echo "fetching Kafka 4.1.0 into $kafka"
    mkdir -p "$target/servers"
    (
        flock 9
        if [ ! -d "$kafka" ]; then
            rm -rf "$kafka.partial"
            mvn -q -B -f servers/kafka-pom.xml dependency:copy-dependencies -DincludeScope=runtime \
                "-DoutputDirectory=$kafka.partial"
            mv "$kafka.partial" "$kafka"
        fi
    ) 9>"$target/servers/.lock"
fi
echo "all servers are here"
