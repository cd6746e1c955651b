"""Fine-tune heads and adapters together with other shops; no row leaves a shop.

All begin with the same pretrained encoder, which stays as it is, and with its vocabulary. In each round a shop learns
from its own rows, and hands on arrays of fixed names and shapes and the number of its rows. Whoever averages them,
weighted by these numbers, needs nothing of Meander: federated/flower.py does it by Flower. Decision 0035.

Reads   examples    the training dates of the plan, one pinned version
        <lake>/_models/<run>/pretrained/, which is the same at all shops
Writes  the file --out, which is all that leaves the shop; with `keep` <lake>/_models/<run>/finetuned/

    begin   write the arrays of the first round: one shop does so, for all
    round   take the arrays that all have agreed on, learn from the rows of this shop, and write the arrays that result
    keep    take the arrays of the last round as the network of this shop, for model.evaluate and all that follows
"""

import argparse
import hashlib
import io
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lake.errors import InputInvalid, ModelMissing, run_main
from lake.places import checkpoints_folder, network_folder
from lake.settings import settings
from model.arrays import Array
from model.finetune import Best, examples, first_answers, keep, plain
from model.network import keras
from model.network.losses import FinetuneTask
from model.network.network import Finetuned, build, measure_scalars, share, shared, start_from
from model.training import launch
from model.training.common import fit_config, report
from model.training.loop import checksum, fit
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact

log = logging.getLogger(__name__)

# Beside the arrays of `shared`: which encoder they belong to, and how many rows they were learnt from.
ENCODER, ROWS = "encoder", "rows"


def main(argv: list[str] | None = None) -> None:
    """Take one step of a training with other shops."""
    parser = argparse.ArgumentParser(
        prog="model.federated", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["begin", "round", "keep"])
    parser.add_argument("--run-id", required=True, metavar="R", help="the run that model.prepare has planned")
    parser.add_argument("--arrays", type=Path, metavar="FILE", help="what all have agreed on; not for `begin`")
    parser.add_argument("--out", type=Path, metavar="FILE", help="what leaves this shop; not for `keep`")
    parser.add_argument("--passes", type=int, default=1, metavar="N", help="over the rows in a round")
    parser.add_argument("--batch", type=int, metavar="N", help="rows of a step; default: the preset's")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="the highest; default: the preset's")
    args = parser.parse_args(argv)
    settings()  # raises for what is no setting, before a folder is looked for by a default
    for name, wanted in (("arrays", args.step != "begin"), ("out", args.step != "keep")):
        if wanted != (getattr(args, name) is not None):
            parser.error(f"`{args.step}` {'needs' if wanted else 'takes no'} --{name}")
    plan = TrainingPlan.load(args.run_id)
    base = Artifact.load(network_folder(plan.run_id, "pretrained"))
    if args.step == "begin":
        write(args.out, first_arrays(base, plan.seed), base, rows=0)
    elif args.step == "round":
        args.workers, args.jit = 1, False  # what fit_config also asks for
        arrays, rows = one_round(plan, base, read(args.arrays, base), args)
        write(args.out, arrays, base, rows)
    else:
        network = network_with(plan, base, read(args.arrays, base))
        keep(plan, base, "finetuned", Best("federated", plain(base.config, network)), {})


def network_of(base: Artifact) -> Finetuned:
    """Return the network as all shops have it, of which `shared` can be learnt.

    Raises:
        ModelMissing: what was pretrained has no encoder to begin with.
    """
    if base.pretrained is None:
        raise ModelMissing("the folder `pretrained` of the run holds no pretrained encoder; take that of all shops")
    network: Finetuned = build(Finetuned, base.config)
    start_from(network, base.pretrained)
    share(network)
    return network


def network_with(plan: TrainingPlan, base: Artifact, arrays: Mapping[str, Array]) -> Finetuned:
    """Return the network with some arrays in the place of what is shared, and scalars measured against this shop's."""
    network = network_of(base)
    measure_scalars(network, first_answers(plan, base.features)["scalars"])
    for name, variable in shared(network).items():
        variable.assign(arrays[name])
    return network


def first_arrays(base: Artifact, seed: int) -> dict[str, Array]:
    """Return the arrays of the first round: heads of random weights, adapters that add nothing."""
    keras.utils.set_random_seed(seed)
    return values_of(network_of(base))


def values_of(network: Finetuned) -> dict[str, Array]:
    """Return the arrays of `shared`."""
    return {name: np.asarray(keras.ops.convert_to_numpy(variable)) for name, variable in shared(network).items()}


def one_round(
    plan: TrainingPlan, base: Artifact, arrays: Mapping[str, Array], args: argparse.Namespace
) -> tuple[dict[str, Array], int]:
    """Learn from the training rows of this shop.

    A round that was killed goes on; one that is asked for again gives the same.

    Args:
        plan: of the run.
        base: what all shops begin with.
        arrays: of `shared`, that all have agreed on.
        args: `passes`, and what `fit_config` needs.

    Returns:
        the arrays that result, and the number of rows.

    Raises:
        SettingsInvalid: there are too few rows for a batch.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    train = examples(plan, base.features, plan.train)
    config = fit_config(base.card["preset"], args, plan, train.rows, args.passes, 0)
    # The rows of each round in another order, the same for who repeats it.
    config = replace(config, seed=int(digest.hexdigest()[:8], 16))
    result = fit(
        lambda: FinetuneTask(network_with(plan, base, arrays)),
        launch.make_strategy(),
        train,
        None,
        config,
        checkpoints_folder(plan.run_id, "federated"),
        identity={"tables": plan.tables, "arrays": digest.hexdigest(), "encoder": encoder_of(base)},
    )
    report("federated", result)
    return values_of(result.task.model), train.rows


def encoder_of(base: Artifact) -> str:
    """Return what tells one pretrained encoder with its vocabulary from another."""
    assert base.pretrained is not None
    digest = hashlib.sha256(checksum(base.pretrained.weights).encode())
    for known in (base.items, base.categories):
        digest.update(known.keys.tobytes())
    return digest.hexdigest()


def write(file: Path, arrays: Mapping[str, Array], base: Artifact, rows: int) -> None:
    """Write what leaves this shop: the arrays, the encoder's checksum, and the number of rows."""
    part = file.with_name(file.name + ".part")
    with part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays, **{ENCODER: np.array(encoder_of(base)), ROWS: np.array(rows)})
    part.replace(file)
    log.info("%s: %d arrays, %d bytes, of %d rows", file, len(arrays), file.stat().st_size, rows)


def read(file: Path, base: Artifact) -> dict[str, Array]:
    """Return the arrays of a file that `write` wrote here or elsewhere; it may have come from anybody.

    Raises:
        InputInvalid: it is no such file, belongs to another encoder, or has other names, shapes or types, or a number
            that is not finite.
    """
    try:
        content = file.read_bytes()
        # Packed, a few kilobytes of zeros are gigabytes of an array. What `write` writes is not.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if packed := [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]:
                raise ValueError(f"{packed[0]} is packed")
        # By way of memory: of a file that is no archive, numpy leaves the stream open.
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
    except Exception as error:
        raise InputInvalid(
            f"--arrays must be a file of numpy arrays that model.federated wrote, got {file}: {error}"
        ) from error
    # Of a member of the archive that is no array, numpy returns the bytes.
    if wrong := sorted(name for name, values in arrays.items() if not isinstance(values, np.ndarray)):
        raise InputInvalid(
            f"--arrays must be a file of numpy arrays, got {file} with other content: {', '.join(wrong)}"
        )
    arrays.pop(ROWS, None)
    encoder, own = str(arrays.pop(ENCODER, "none")), encoder_of(base)
    if encoder != own:
        raise InputInvalid(
            f"{file} belongs to the pretrained encoder {encoder[:12]}, and this run has {own[:12]}; take the folder "
            "`pretrained` that all shops have"
        )
    wanted = {name: tuple(variable.shape) for name, variable in shared(network_of(base)).items()}
    found = {name: values.shape for name, values in arrays.items()}
    if found != wanted:
        other = sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name))
        raise InputInvalid(
            f"{file} must hold the {len(wanted)} arrays of this network; other, missing or of another shape: "
            f"{', '.join(other)}"
        )
    for name, values in arrays.items():
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise InputInvalid(
                f"{name} of {file} must be finite 32-bit numbers, got {values.dtype}; leave out this round"
            )
    return arrays


if __name__ == "__main__":
    run_main(main)
