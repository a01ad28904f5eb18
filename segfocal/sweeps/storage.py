"""Where studies are kept: a journal file, or a database by its URL."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError

from segfocal.errors import UserError, first_line

JOURNAL = "study.log"
LOST = (StorageInternalError, OSError)  # what is raised where a storage is gone: of databases, of journals
DRIVER = "postgresql+psycopg://"  # the extra's; SQLAlchemy before 2.1 takes another where none is said
PATIENCE = 60  # seconds that a process waits for another to release an SQLite file, and for a server to answer


def located(storage: str | None, directory: Path) -> str:
    """A storage as any process finds it: a URL as it is, the absolute path of a journal."""
    if storage is None:
        return str(directory / JOURNAL)
    return storage if "://" in storage else str(Path(storage).absolute())


def printable(storage: str) -> str:
    """A storage without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)


def open_storage(storage: str, option: str = "sweep.storage") -> BaseStorage:
    """Open a storage; it is made where there is none.

    Args:
        storage: as `located` gives it.
        option: that says it.

    Raises:
        UserError: it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if "://" not in storage:
            Path(storage).touch()
            return JournalStorage(JournalFileBackend(storage))
        return _database(storage)
    except ImportError:
        extra = ": pip install 'segfocal[postgresql]'" if storage.startswith("postgresql:") else ""
        raise UserError(f"{option}={printable(storage)}: its driver is not installed{extra}") from None
    except NoSuchModuleError:
        raise UserError(f"{option}={printable(storage)}: there is no such database, or no such driver of one") from None
    except Exception as error:  # of the file system, SQLAlchemy, the database's driver
        raise UserError(f"{option}={printable(storage)}: cannot be opened ({first_line(error)})") from None


def _database(url: str, tries: int = 3) -> BaseStorage:
    """Open a database; where another process makes its tables in the same moment, once more."""
    try:
        return RDBStorage(url.replace("postgresql://", DRIVER, 1), engine_kwargs=_options(url.partition(":")[0]))
    except (IntegrityError, ProgrammingError, OperationalError) as error:
        made = isinstance(error, IntegrityError) or "already exists" in str(error)
        if not made or tries == 1:
            raise
        time.sleep(1 + random.random())
        return _database(url, tries - 1)


def _options(database: str) -> dict[str, Any]:
    """For SQLAlchemy."""
    if database == "sqlite":
        return {"connect_args": {"timeout": PATIENCE}}
    return {"pool_pre_ping": True} | ({"connect_args": {"connect_timeout": PATIENCE}} if database == "postgresql" else {})
