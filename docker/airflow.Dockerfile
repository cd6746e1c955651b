# Airflow's processes: api-server, scheduler, dag-processor, triggerer, and the workers that drive Spark jobs.
#   docker build --build-arg PYTHON="$PYTHON_IMAGE" -f docker/airflow.Dockerfile -t meander-airflow .
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
COPY docker/airflow.lock docker/build.lock ./docker/
RUN pip install --no-cache-dir --require-hashes --requirement docker/build.lock
RUN python -m venv --without-pip /opt/meander \
    && uv pip sync --python /opt/meander/bin/python --no-cache --require-hashes docker/airflow.lock
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
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --gid 0 --create-home meander \
    && ln -s /usr/bin/env /entrypoint
COPY --from=build /opt/meander /opt/meander
COPY docs/runbook.md /opt/meander/lib/python3.11/site-packages/docs/runbook.md
ENV PATH=/opt/meander/bin:$PATH \
    AIRFLOW_HOME=/home/meander/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/meander/lib/python3.11/site-packages/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PYSPARK_PYTHON=/opt/meander/bin/python
USER 50000
WORKDIR /home/meander
# What runs in the container says which of these it is: compose.yaml and the Helm values set their own check for the others.
HEALTHCHECK --interval=30s --timeout=20s --start-period=90s --retries=5 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/api/v2/monitor/health', timeout=10)"]
# Airflow's Helm chart gives whole commands, and its probes call /entrypoint with one.
ENTRYPOINT ["tini", "--"]
CMD ["airflow", "api-server"]
