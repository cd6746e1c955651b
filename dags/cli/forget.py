"""`meander forget`: take users out of the lake, the serving store and, where asked, the landing."""

import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table as Grid

from dags.cli.console import AsJson, err, out, print_json
from dags.cli.pseudonyms import key_of_lake
from lake.errors import ForgetIncomplete, SettingsInvalid
from lake.pseudonyms import IdentityMap, Key, in_lake, in_shop, is_pseudonym
from lake.settings import Settings, settings

if TYPE_CHECKING:
    from lake.privacy.forget import Done, Left, Places


def forget(
    user: Annotated[
        str | None, typer.Argument(metavar="[USER]", help="id of a user, the shop's own or as events have it")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="a file of ids, one in each line, in UTF-8")] = None,
    rewrite_landing: Annotated[
        bool, typer.Option("--rewrite-landing", help="also write landing files anew; else they are named")
    ] = False,
    only_store: Annotated[
        bool, typer.Option("--only-store", help="the serving store alone, by who may write there and not to the lake")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Forget users: take their rows out of everything, keep them out, and print what is left to do."""
    from lake.privacy import forget as forgetting

    config = settings()
    given = ids(user, file)
    users = names_of(given, config)
    if only_store:
        if rewrite_landing:
            raise SettingsInvalid("--only-store leaves the landing alone, so it takes no --rewrite-landing")
        done, left = in_store(config, [each.in_lake for each in users])
        if as_json:
            print_json({"done": [asdict(each) for each in done], "left": [asdict(each) for each in left]})
            return
        show_done(done)
        show_left(left)
        return
    if nameless := needed_for_the_store(given, users, config):
        # On the screen alone, since a receipt has no name of a user; and now, whatever comes in between.
        err.print(
            "The map of identities will no longer have them, so note how events name them, for `meander forget ID "
            f"--only-store` where the serving store is: {', '.join(nameless)}",
            soft_wrap=True,
        )
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=err) as progress:
        task = progress.add_task(f"forgetting {len(users)} users", total=None)
        receipt = forgetting.forget(
            [each.in_lake for each in users],
            places_of(config, users, rewrite_landing=rewrite_landing),
            lambda step: progress.update(task, description=step),
        )
    if as_json:
        print_json(asdict(receipt))
    else:
        show_done(receipt.done)
        for model in receipt.models:
            out.print(f"learned from their rows: {model['file']}, dates {', '.join(model['dates'])}", soft_wrap=True)
        show_left(receipt.left)
    if receipt.unread:
        files = ", ".join(f"{each.file} of {each.table}" for each in receipt.unread)
        raise ForgetIncomplete(
            f"expected files that can be read, found {len(receipt.unread)} that cannot: {files}. All others are "
            f"without these users; repair those and run the same command again. Receipt {receipt.request}"
        )
    if not as_json:
        out.print(f"{receipt.users} users forgotten; receipt {receipt.request}")


def show_done(done: "Sequence[Done]") -> None:
    """Print what was done in each place."""
    grid = Grid("where", "files written anew", "rows removed", "files removed", "note", box=box.SIMPLE)
    for each in done:
        grid.add_row(each.where, f"{each.files:,}", f"{each.rows:,}", f"{each.removed:,}", each.note)
    out.print(grid)


def show_left(left: "Sequence[Left]") -> None:
    """Print what is left to do, by whom, until when."""
    for each in left:
        until = f", until {each.until}" if each.until else ""
        out.print(f"left to do, by {each.by}{until}: {each.what}", soft_wrap=True)


def in_store(config: Settings, users: Sequence[str]) -> "tuple[list[Done], list[Left]]":
    """Forget users in the serving store, for a role that may not write to the lake.

    Raises:
        SettingsInvalid: no serving store is set.
    """
    from lake.privacy.forget import Left
    from lake.privacy.forgotten import ForgottenUsers
    from lake.serving.forget import forget_in_store

    if not config.serving_url.get_secret_value():
        raise SettingsInvalid("--only-store needs the serving store, and MEANDER_SERVING_URL is not set")
    done, left = forget_in_store(config, users)
    listed = ForgottenUsers.read()
    if missing := sum(user not in listed for user in users):
        what = f"the lake, for {missing} users: until `meander forget` has run there, the next load brings them back"
        left.append(Left(what, "whoever may write to it"))
    return done, left


def ids(user: str | None, file: Path | None) -> list[str]:
    """Return the ids of the users that were asked for, each once.

    Raises:
        SettingsInvalid: none was given, or in two ways; or one that no event can have.
    """
    from lake.privacy.forget import as_in_lake

    if (user is None) == (file is None):
        raise SettingsInvalid("meander forget needs one USER, or --file with an id in each line; received both or none")
    if file is None:
        return [as_in_lake(user or "")]
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"--file {file} cannot be read: {type(error).__name__}; give a text file in UTF-8"
        ) from None
    users = sorted({as_in_lake(line) for line in lines if line.strip()})
    if not users:
        raise SettingsInvalid(f"--file {file} has no ids; write one in each line")
    return users


@dataclass(frozen=True)
class Names:
    """What a user is called: by the lake, and by the shop, whose landing files have no pseudonyms; None if unknown."""

    in_lake: str
    in_shop: str | None


def names_of(given: Sequence[str], config: Settings) -> list[Names]:
    """Return the names of users who were given by either; in a lake without pseudonyms there is one name.

    Raises:
        IdentityUnknown: an id of the shop was given, and neither the key nor the map is set, or the map lacks the user.
    """
    key_id = key_of_lake()
    # A lake in which nothing was published yet gets its key by the next ingest.
    if key_id is None and (key := Key.of(config)):
        key_id = key.id
    if not key_id:
        return [Names(user, user) for user in given]

    def of_shop(user: str) -> str | None:
        if not is_pseudonym(user, key_id):
            return user
        return in_shop(user, config) if IdentityMap.of(config) else None

    return [Names(in_lake(user, key_id, config), of_shop(user)) for user in given]


def needed_for_the_store(given: Sequence[str], users: Sequence[Names], config: Settings) -> list[str]:
    """Return how the lake names users who were given by the shop's ids, if nobody can say it once they are forgotten.

    That is where the map of identities alone says it, and the serving store is left to another command.
    """
    if config.serving_url.get_secret_value() or Key.of(config):
        return []
    return [names.in_lake for id_, names in zip(given, users, strict=True) if names.in_lake != id_]


def places_of(config: Settings, users: Sequence[Names], *, rewrite_landing: bool) -> "Places":
    """Return where to look for some users, by the settings."""
    from dags.shared.alerts import private_folder
    from jobs.landing_users import forget_in_landing, whose_of
    from jobs.source import load_source
    from lake.landing import Landing
    from lake.places import alerts_folder
    from lake.privacy.forget import Elsewhere, Left, Places
    from lake.privacy.forgotten import ForgottenUsers, first_named, request_of
    from lake.privacy.matching import NamedUsers
    from lake.serving.forget import forget_in_store

    source, landing = load_source(config.source), Landing.of(config)
    of_shop = NamedUsers(frozenset(user.in_shop for user in users if user.in_shop))

    def in_landing(named: NamedUsers) -> "tuple[list[Done], list[Left]]":
        if not of_shop.ids:
            return [], []
        request = request_of(ForgottenUsers.read(), named.ids)
        new = first_named(request, named.ids)
        of_request = NamedUsers(frozenset(user.in_shop for user in users if user.in_shop and user.in_lake in new))
        return forget_in_landing(landing, of_shop, source, rewrite=rewrite_landing, request=request, new=of_request)

    elsewhere: list[Elsewhere] = [in_landing]
    if unknown := sum(user.in_shop is None for user in users):
        unsearched = f"the landing was not searched for {unknown} users, given by pseudonyms: give the shop's own ids"
        elsewhere.append(lambda _: ([], [Left(unsearched, "whoever has MEANDER_IDENTITY_MAP")]))
    elsewhere.append(lambda _: ([], copies()))
    if config.serving_url.get_secret_value():
        elsewhere.append(lambda users: forget_in_store(config, users.ids))
    else:
        what = "the serving store, if there is one: run this again with MEANDER_SERVING_URL and --only-store"
        if key_of_lake():
            what += ", and the id that events have"
        elsewhere.append(lambda _: ([], [Left(what, "whoever may write to it")]))
    return Places(
        docs=config.docs_folder,
        alerts=[alerts_folder(memory) for memory in (config.lake, private_folder()) if memory],
        logs=local_logs(),
        log_files=local_files(),
        retention=timedelta(days=config.retention_days),
        whose=whose_of(source),
        elsewhere=elsewhere,
        # Of who is forgotten here nobody can say the other name, as all before, and this command run again, need it.
        at_last=lambda named: forget_identities(config, named.ids),
    )


def forget_identities(config: Settings, pseudonyms: Collection[str]) -> "tuple[list[Done], list[Left]]":
    """Take users out of the map of identities, by which somebody could say whose each pseudonym was."""
    from lake.privacy.forget import Done, Left

    if not key_of_lake():
        return [], []
    if identities := IdentityMap.of(config):
        return [Done("identity map", files=identities.forget(pseudonyms))], []
    return [], [Left("the map of identities, if one is kept: set MEANDER_IDENTITY_MAP and run this again", "its owner")]


def local_logs() -> list[str]:
    """Return the folders of Airflow's logs on this machine, those that exist."""
    return [str(folder) for home in airflow_homes() if (folder := home / "logs").is_dir()]


def local_files() -> list[str]:
    """Return what else processes of ours have written on this machine: their own logs, and databases.

    An error of Spark or of a step may quote a row, and so may what Airflow keeps of a task that has failed.
    """
    # SQLite writes to a log beside the database first: Airflow has it do so.
    files = [
        *(file for pattern in ("*.log", "*.db", "*.db-wal") for file in home_folder().glob(pattern)),
        *(home / name for home in airflow_homes() for name in ("airflow.db", "airflow.db-wal")),
    ]
    return sorted({str(file.resolve()) for file in files if file.is_file()})


def home_folder() -> Path:
    """Return the folder of `make up` and `make demo`."""
    return Path(os.environ.get("MEANDER_HOME", ".meander"))


def airflow_homes() -> list[Path]:
    """Return the folders that Airflow may have on this machine."""
    given = os.environ.get("AIRFLOW_HOME")
    homes = [*([Path(given)] if given else []), home_folder() / "airflow"]
    return list(dict.fromkeys(home.resolve() for home in homes))


def copies() -> "list[Left]":
    """Return which copies of rows, made by commands of ours outside of the lake, are on this machine."""
    from lake.privacy.forget import Left

    said = {
        "federated": "has copies of rows, made by `make federated`: remove the folder",
        "tmp": "is what Spark keeps while it runs, and may have rows: it goes with `make down`, or remove it then",
    }
    there = {home_folder() / name: what for name, what in said.items()}
    return [
        Left(f"{folder} {what}", "you") for folder, what in there.items() if folder.is_dir() and any(folder.iterdir())
    ]
