#!/bin/sh
# Makes the databases of compose.yaml, each with an owner whom no other database lets in: PostgreSQL's image runs it once.
set -eu
make_database() {
    # Not as an argument: other processes of a machine can read a command line.
    psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 --quiet <<END
\\getenv password $2
create role $1 login password :'password';
create database $1 owner $1;
revoke all on database $1 from public;
END
}
make_database airflow AIRFLOW_PASSWORD
make_database mlflow MLFLOW_PASSWORD
make_database serving SERVING_PASSWORD
psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 --quiet \
    --command 'revoke all on database postgres from public'
