# A Spark master, worker, or executor; scoring runs in it as well, so it holds TensorFlow for the CPU.
#   docker build --build-arg PYTHON="$PYTHON_IMAGE" -f docker/spark.Dockerfile -t meander-spark .
# The base by its digest, as docker/fill-env.sh finds it out: without it, nothing is built.
ARG PYTHON

FROM ${PYTHON} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/*
# The user of the image may not write bytecode; without any, each process would compile all that it imports.
ENV UV_COMPILE_BYTECODE=1
WORKDIR /src
COPY docker/spark.lock docker/build.lock ./docker/
RUN pip install --no-cache-dir --require-hashes --requirement docker/build.lock
RUN python -m venv --without-pip /opt/meander \
    && uv pip sync --python /opt/meander/bin/python --no-cache --require-hashes docker/spark.lock
COPY docker/s3a.sh docker/s3a.xml docker/s3a.sha256 ./docker/
RUN docker/s3a.sh /opt/meander/bin/python /opt/s3a \
    && cp /opt/s3a/*.jar /opt/meander/lib/python3.11/site-packages/pyspark/jars/
COPY pyproject.toml README.md LICENSE ./
COPY lake lake
COPY jobs jobs
COPY expectations expectations
COPY model model
COPY dags dags
RUN uv pip install --python /opt/meander/bin/python --no-cache --no-deps --build-constraints docker/build.lock .

FROM ${PYTHON}
# libgomp1: LightGBM's trees, a part of many models, cannot be loaded without it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 openjdk-17-jre-headless tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --gid 0 --create-home meander
COPY --from=build /opt/meander /opt/meander
COPY docker/spark-entry.sh /opt/meander/bin/spark-entry
ENV PATH=/opt/meander/bin:$PATH \
    SPARK_HOME=/opt/meander/lib/python3.11/site-packages/pyspark \
    SPARK_NO_DAEMONIZE=1 \
    PYSPARK_PYTHON=/opt/meander/bin/python
USER 50000
WORKDIR /home/meander
# The page of a master; that of a worker is on port 8081, see compose.yaml. Kubernetes watches executors by itself.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080', timeout=5)"]
ENTRYPOINT ["tini", "--", "spark-entry"]
CMD ["spark-class", "org.apache.spark.deploy.master.Master", "--host", "0.0.0.0", "--port", "7077"]
