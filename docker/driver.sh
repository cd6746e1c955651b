#!/bin/sh
# Writes Spark's defaults for the drivers of this container, then runs what it is given. Drivers take the secret of a cluster
# from their configuration alone, and as an option of Java every process of the machine could read it.
set -eu
umask 077
mkdir -p "$SPARK_CONF_DIR"
cat >"$SPARK_CONF_DIR/spark-defaults.conf" <<END
spark.authenticate            true
spark.authenticate.secret     $SPARK_SECRET
spark.network.crypto.enabled  true
spark.network.crypto.cipher   AES/GCM/NoPadding
spark.io.encryption.enabled   true
END
umask 022
exec "$@"
