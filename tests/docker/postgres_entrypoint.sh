#!/bin/bash
# Entry point of the stand-in for the image `postgres`: the variables that compose.yaml sets.
set -euo pipefail
mkdir -p "$PGDATA"
chown postgres:postgres "$PGDATA"
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A copy of the secret that the server's own user may read.
    secret=$(mktemp)
    cat "$POSTGRES_PASSWORD_FILE" > "$secret"
    chown postgres "$secret"
    # shellcheck disable=SC2086 # options, separated by spaces
    gosu postgres initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile="$secret" $POSTGRES_INITDB_ARGS
    PGPASSWORD=$(cat "$secret")
    export PGPASSWORD
    rm "$secret"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    gosu postgres pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=" start
    gosu postgres createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
    gosu postgres pg_ctl -D "$PGDATA" -w -m fast stop
    unset PGPASSWORD
fi
exec gosu postgres "$@" -D "$PGDATA" -c listen_addresses='*'
