#!/bin/sh
# Initialise an empty data directory once, then become the server. Half a database is never left behind: the directory
# is initialised beside its place and moved there when it is whole.
set -eu

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec gosu postgres "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=${POSTGRES_PASSWORD:-}
    [ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(cat "$POSTGRES_PASSWORD_FILE")
    if [ -z "$password" ]; then
        echo "set POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD): a database without a password is not started" >&2
        exit 1
    fi
    user=${POSTGRES_USER:-postgres}
    rm -rf "$PGDATA/new"
    mkdir "$PGDATA/new"
    printf '%s\n' "$password" > "$PGDATA/new.password"
    initdb -D "$PGDATA/new" -U "$user" --pwfile="$PGDATA/new.password" --auth-local=trust --auth-host=scram-sha-256 >/dev/null
    rm -f "$PGDATA/new.password"
    {
        echo "listen_addresses = '*'"
        echo "unix_socket_directories = '/run/postgresql'"
    } >> "$PGDATA/new/postgresql.conf"
    echo "host all all all scram-sha-256" >> "$PGDATA/new/pg_hba.conf"
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        pg_ctl -D "$PGDATA/new" -w -o "-c listen_addresses=" start >/dev/null
        createdb -U "$user" "${POSTGRES_DB:-$user}"
        pg_ctl -D "$PGDATA/new" -w stop >/dev/null
    fi
    mv "$PGDATA"/new/PG_VERSION "$PGDATA/new.version"
    mv "$PGDATA"/new/* "$PGDATA"/
    rmdir "$PGDATA/new"
    mv "$PGDATA/new.version" "$PGDATA/PG_VERSION"
fi

exec "$@"
