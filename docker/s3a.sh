#!/usr/bin/env bash
# Fetch the jars of s3a.xml by the Ivy that PySpark brings, and check each against s3a.sha256.
#   docker/s3a.sh PYTHON FOLDER    PYTHON has PySpark; FOLDER is made anew unless it holds just these jars
set -euo pipefail
python=$1
folder=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

has_just_these() {
    local jars
    jars=$(sed 's/.*  //' "$here/s3a.sha256" | LC_ALL=C sort)
    (cd "$folder" && [ "$(LC_ALL=C ls)" = "$jars" ] && sha256sum "$@" --check --strict "$here/s3a.sha256")
}

if has_just_these --status 2>/dev/null; then
    exit 0
fi
rm -rf "$folder"
ivy=$("$python" -c 'import pathlib, pyspark; print(*pathlib.Path(pyspark.__file__).parent.glob("jars/ivy-*.jar"))')
if ! said=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -jar "$ivy" -warn -ivy "$here/s3a.xml" -cache "$folder/.cache" \
    -retrieve "$folder/[artifact]-[revision].[ext]"); then
    echo "$said" >&2
    exit 1
fi
rm -rf "$folder/.cache"
if ! has_just_these --quiet; then
    echo "$folder does not hold the jars of $here/s3a.sha256, and nothing else" >&2
    exit 1
fi
