#!/bin/sh
# Makes the secrets that deploy/compose.yaml gives to its containers, each once: what is there is left alone.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
for name in influx-password influx-token postgres-password; do
    if [ ! -e "secrets/$name" ]; then
        od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"secrets/$name.partial"
        # Compose mounts the file as it is, and the containers' users are others than this one. No other user may enter the directory.
        chmod 444 "secrets/$name.partial"
        mv "secrets/$name.partial" "secrets/$name"
    fi
done
echo "$(pwd)/secrets: $(ls secrets | tr '\n' ' ')"
