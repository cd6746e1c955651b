#!/bin/sh
# Makes the buckets of compose.yaml, and for each role a user with the rights of <role>.json; again, it changes nothing.
set -eu
export MC_HOST_store="http://$MINIO_ROOT_USER:$MINIO_ROOT_PASSWORD@s3:9000"
for bucket in lake landing logs; do
    mc mb --ignore-existing "store/meander-$bucket"
done
add() {
    mc admin policy create store "$1" "${0%/*}/$1.json"
    # Not as an argument: other processes of a machine can read a command line.
    printf '%s\n%s\n' "$1" "$2" | mc admin user add store
    # To attach a policy that the user has already is an error.
    case $(mc --json admin user info store "$1") in
        *"\"policyName\":\"$1\""*) ;;
        *) mc admin policy attach store "$1" --user "$1" ;;
    esac
}
add ingest "$S3_INGEST_KEY"
add train "$S3_TRAIN_KEY"
add serve "$S3_SERVE_KEY"
add page "$S3_PAGE_KEY"
add logs "$S3_LOGS_KEY"
add shop "$S3_SHOP_KEY"
