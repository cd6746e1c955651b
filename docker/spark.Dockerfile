# A Spark master, worker, or executor; scoring runs in it as well, so it holds TensorFlow for the CPU.
#   docker build -f docker/spark.Dockerfile -t meander-spark .
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY docker/spark.lock docker/build.lock ./docker/
RUN python -m venv --without-pip /opt/meander \
    && uv pip sync --python /opt/meander/bin/python --no-cache --require-hashes docker/spark.lock
COPY pyproject.toml README.md LICENSE ./
COPY lake lake
COPY jobs jobs
COPY expectations expectations
COPY model model
COPY dags dags
RUN uv pip install --python /opt/meander/bin/python --no-cache --no-deps --build-constraints docker/build.lock .

FROM ${PYTHON}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --gid 0 --create-home meander
COPY --from=build /opt/meander /opt/meander
ENV PATH=/opt/meander/bin:$PATH \
    SPARK_HOME=/opt/meander/lib/python3.11/site-packages/pyspark \
    SPARK_NO_DAEMONIZE=1 \
    PYSPARK_PYTHON=/opt/meander/bin/python
USER 50000
WORKDIR /home/meander
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=5 \
    CMD ["pgrep", "-f", "org.apache.spark"]
ENTRYPOINT ["tini", "--", "spark-class"]
CMD ["org.apache.spark.deploy.master.Master", "--host", "0.0.0.0", "--port", "7077"]
