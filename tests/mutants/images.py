"""Wrong changes to what containers may do, know and call: docker/."""

from tests.mutants.mutant import Mutant

TESTS = "tests/docker/test_hardening.py"
COMPOSE, KUBERNETES = "docker/compose.yaml", "docker/kubernetes"
SECRET = "tests/docker/test_spark_secret.py"

MUTANTS = [
    Mutant("images_capabilities", COMPOSE, "  cap_drop: [ALL]\n", "  cap_drop: [NET_RAW]\n", TESTS),
    Mutant(
        "images_trainer_is_root_of_the_store",
        COMPOSE,
        "      <<: [*airflow-environment, *train, *registry, *driver]",
        "      <<: [*airflow-environment, *s3-root, *registry, *driver]",
        TESTS,
    ),
    Mutant(
        "images_worker_knows_the_serving_store",
        COMPOSE,
        "      <<: [*airflow-environment, *ingest, *registry, *driver]",
        "      <<: [*airflow-environment, *serve, *ingest, *registry, *driver]",
        TESTS,
    ),
    Mutant("images_executors_reach_the_database", COMPOSE, "[spark, store]\n", "[spark, store, database]\n", TESTS),
    Mutant("images_published_to_all", COMPOSE, '"127.0.0.1:8080:8080"', '"8080:8080"', TESTS),
    Mutant("images_base_by_tag", "docker/spark.Dockerfile", "ARG PYTHON\n", "ARG PYTHON=python:3.11-slim\n", TESTS),
    Mutant("images_no_digest_is_one", "docker/fill-env.sh", "if ! [[ $found =~", "if [[ $found && x =~", TESTS),
    Mutant(
        "images_secrets_are_made_anew",
        "docker/fill-env.sh",
        """        if [ -z "$value" ]; then""",
        """        if true; then""",
        TESTS,
    ),
    Mutant("images_secrets_for_all_users", "docker/fill-env.sh", '$(mktemp "$file.XXXXXX")', "$file.new", TESTS),
    Mutant(
        "images_databases_open_to_all",
        "docker/databases.sh",
        "revoke all on database $1 from public;\n",
        "",
        TESTS,
    ),
    Mutant(
        "kubernetes_token_for_serving",
        f"{KUBERNETES}/serve.yaml",
        "      automountServiceAccountToken: false\n",
        "",
        TESTS,
    ),
    Mutant(
        "kubernetes_root_file_system",
        f"{KUBERNETES}/serve.yaml",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        TESTS,
    ),
    Mutant(
        "kubernetes_workers_call_trainings",
        f"{KUBERNETES}/network.yaml",
        "    - from: &training\n",
        "    - from: &training\n        - podSelector: {matchLabels: {component: worker}}\n",
        TESTS,
    ),
    Mutant(
        "kubernetes_everybody_calls",
        f"{KUBERNETES}/network.yaml",
        "  policyTypes: [Ingress, Egress]\n---\n",
        "  policyTypes: [Egress]\n---\n",
        TESTS,
    ),
    Mutant(
        "kubernetes_everything_goes_out",
        f"{KUBERNETES}/network.yaml",
        "    - ports: [{protocol: TCP, port: 443}]\n",
        "    - {}\n",
        TESTS,
    ),
    Mutant(
        "kubernetes_first_user_is_admin_admin",
        f"{KUBERNETES}/values.yaml",
        "createUserJob:\n  enabled: false",
        "createUserJob:\n  enabled: true",
        TESTS,
    ),
    Mutant(
        "spark_takes_jobs_of_strangers",
        COMPOSE,
        "  SPARK_DAEMON_JAVA_OPTS: >-\n    -Dspark.authenticate=true -Dspark.network.crypto.enabled=true ",
        "  SPARK_DAEMON_JAVA_OPTS: >-\n    ",
        SECRET,
    ),
]
