"""`python -m dags.cli` is the `meander` command."""

from dags.cli.main import main

if __name__ == "__main__":
    main()
