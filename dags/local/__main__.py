"""`python -m dags.local up | down | status | demo | mlflow`."""

from dags.local.commands import main

if __name__ == "__main__":
    main()
