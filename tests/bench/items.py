"""How good lists of items are without a network: every baseline of items on the test rows of a run that was prepared.

    python -m tests.bench.items --run-id R

Learns and chooses as `model.evaluate` does, and measures the same rows, without loading a network: what the item head
of that run has to be compared with. In brackets: 95 % intervals over users.
"""

import argparse
import sys
import time

from lake.places import vocabulary_folder
from model.data.vocabulary import Vocabulary
from model.evaluate import Rows
from model.judging.baselines import cheap_baselines
from model.judging.comparison import evaluate, scores_of
from model.judging.items import item_methods
from model.training.plan import TrainingPlan

METRICS = ("recall@20", "ndcg@10")


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.items", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-id", required=True, metavar="R", help="a run that was prepared")
    parser.add_argument("--max-users", type=int, default=20_000, metavar="N", help="as model.evaluate has it")
    parser.add_argument("--max-rows", type=int, default=400_000, metavar="N", help="likewise")
    args = parser.parse_args()
    plan = TrainingPlan.load(args.run_id)
    rows = Rows.read(plan, args.max_users, args.max_rows)
    if rows.history is None:
        parser.error(f"the plan of run {args.run_id!r} names no version of events")
    categories = list(Vocabulary.load(vocabulary_folder(plan.run_id), "category_id").ids)
    methods, seconds = [], {}
    simple = cheap_baselines(rows.history)
    for method in (*simple, *item_methods(rows.history, plan.seed, simple)):
        began = time.process_time()
        method.tasks = tuple(task for task in method.tasks if task == "next_item")
        if method.tasks:
            scores = scores_of(method.fit(rows.train, rows.valid, categories), rows.test)
            methods.append(scores)
            seconds[method.name] = time.process_time() - began
    lookback = plan.lookback_days
    found = evaluate(rows.test, rows.train, categories, methods, lookback_days=lookback, seed=plan.seed).metrics
    found = found[(found["task"] == "next_items") & (found["slice"] == "all")].set_index(["method", "metric"])
    sys.stdout.write(f"{rows.history.events} events of {len(rows.history.users)} users; {', '.join(METRICS)}, CPU s\n")
    for name, took in seconds.items():
        told = [found.loc[(name, metric)] for metric in METRICS if (name, metric) in found.index]
        parts = [f"{one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f})" for one in told] or ["no answer"]
        sys.stdout.write(f"{name}: {', '.join(parts)}, {took:.0f}\n")


if __name__ == "__main__":
    main()
