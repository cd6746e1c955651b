#!/usr/bin/env bash
# Entry of the image `spark`: runs what it is given. Spark on Kubernetes gives its executors the one word `executor`, and all
# else in the environment, as the image that comes with Spark (but not with PySpark) expects it.
set -euo pipefail
if [ "${1:-}" != executor ]; then
    exec "$@"
fi
options=()
for ((n = 0; ; n++)); do
    option=SPARK_JAVA_OPT_$n
    [ -n "${!option+set}" ] || break
    options+=("${!option}")
done
exec java "${options[@]}" -Xms"$SPARK_EXECUTOR_MEMORY" -Xmx"$SPARK_EXECUTOR_MEMORY" \
    -cp "${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$SPARK_HOME/jars/*" \
    org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
    --driver-url "$SPARK_DRIVER_URL" \
    --executor-id "$SPARK_EXECUTOR_ID" \
    --cores "$SPARK_EXECUTOR_CORES" \
    --app-id "$SPARK_APPLICATION_ID" \
    --hostname "$SPARK_EXECUTOR_POD_IP" \
    --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
    --podName "$SPARK_EXECUTOR_POD_NAME"
