"""What a row of the grammar is: one keyword as data, and everything that comes out of it.

Parsing, validation, ``kad -t``, the dump and docs/keywords.md are all driven by rows. A row says its name,
the kind of its value (:class:`Kind`: how words become a value, and how that is described to people), one
line of help, which field of the model it fills, which processes it concerns, whether kad acts on it, and
what a second occurrence does. Where it may stand is the :class:`Block` that holds it.

How to write rows (kad/config/grammar/*.py)::

    PERSISTENCE = Row("persistence_timeout", integer(1, 2678400, unit="s", bare=360),
                      "How long a client stays with its server.", acts=True)

* **A value**: a kind from :mod:`kad.config.values` (``integer``, ``decimal``, ``flag``, ``boolean``,
  ``word``, ``choice``, ``address`` …), or ``Kind("text for the docs", read=my_reader)`` with
  ``my_reader(reading, frame, statement) -> value``. A reader reports through ``reading`` and returns
  :data:`NOTHING` when nothing is to be stored; it may also fill ``frame.fields`` itself (several fields
  from one line) and return NOTHING.
* **A nested block**: ``Row("url", opens(URL), "…", repeat=Repeat.ADD)`` with ``URL = Block("…/url", rows)``.
  ``Block.open(reading, frame)`` looks at the words after the keyword (``frame.statement``) and answers
  whether to read the block at all; False = it has reported why and the block is skipped.
  ``Block.close(reading, frame)`` turns ``frame.fields`` into the value that is stored in the parent frame
  under the row's field (a model Struct), or returns NOTHING. Without ``close`` the frame itself is stored.
* **List items** (a block whose lines are values, not keywords): ``Block("…/unicast_peer", (),
  item=Row("<IPADDR>", Kind(…), "…"))``; item readers see ``statement.texts[0]`` as the first value.
  ``close`` finds the values in ``frame.items``. A block may have rows *and* an item: what is no row's name
  is an item.
* **Options within a line** (``dev``, ``label`` … of a virtual_ipaddress): ``Kind(…, options=(Row("dev",
  Kind("interface", take=…), "…"), …))``; see :func:`kad.config.values.read_options`.
* **Nested Structs**: a field ``"garp.master_delay_us"`` fills a field of a Struct within the model
  (:func:`kad.config.assemble.assemble`).
* Readers use ``statement.texts`` (plain strings); ``statement.words`` has places and is made on demand.
* **Aliases**: a row of its own with ``alias_of="the other name"`` and the same ``field``; when it is old as
  well, ``deprecated="what to write instead"`` makes every use a warning with exit status 5 (keepalived's
  answer); with ``deprecated_status=ExitStatus.OK`` it is said but does not count.
* **Must already be defined**: readers run in the order of the file, so
  ``reading.definition("track_file", name)`` knows just what was defined above. ``Block.close`` registers:
  ``reading.define("track_file", name, value)``. Things that may come later (a virtual_server_group) are
  looked up in the grammar's ``finish`` function.
* **Which occurrence counts**: ``repeat`` LAST (silently, keepalived's usual way), LAST_SAID (reported),
  FIRST (a second one is reported and ignored) or ADD (values collect in a list).
* **Inheritance**: ``frame.parent`` leads outwards; ``frame.inherited("retry")`` is the nearest enclosing
  value. What depends on the whole file is resolved in ``finish``, after the last line.
* **Defaults** stand in the model Struct only. A row's ``default`` is for people, and only needed where the
  model cannot say it ("global value").

``exit_status`` of a report is what keepalived 2.4.3's -t answers for it (the highest class wins: see
:func:`kad.config.load.worst_status`); OK where keepalived only logs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from kad.config.iproute_names import USUAL_LOCAL, USUAL_VENDOR, Names
from kad.config.tree import Statement
from kad.errors import Diagnostic, ExitStatus, Severity, Span
from kad.ipc.messages import Role

if TYPE_CHECKING:
    from kad.config.machine import Machine

CORE = (Role.CONTROL,)
"""Concerns the daemon as a whole: supervisor and control."""
VRRP = (Role.VRRP,)
CHECK = (Role.CHECK,)
BFD = (Role.BFD,)
VRRP_CHECK = (Role.VRRP, Role.CHECK)
ALL = (Role.CONTROL, Role.VRRP, Role.CHECK, Role.BFD)


class Repeat(Enum):
    """What a second occurrence of a keyword in the same block does."""

    LAST = "last wins"
    LAST_SAID = "last wins, reported"
    FIRST = "first wins, reported"
    ADD = "adds up"


class _Nothing(Enum):
    NOTHING = "nothing to store"


NOTHING: Final = _Nothing.NOTHING

CLOSING: Final = -1
"""As the ``word`` of a report: the brace that closes the block, where what a block lacks is said."""

Read = Callable[["Reading", "Frame", Statement], Any]
Take = Callable[["Reading", "Frame", Statement, int], tuple[Any, int]]
"""Of an option at a word's index: its value (or NOTHING) and the index of the word after it."""


class Kind(Struct, frozen=True):
    """How the words of a statement become a value; ``text``, ``unit``, ``low``, ``high`` are for people."""

    text: str
    read: Read | None = None
    unit: str = ""
    low: str = ""
    high: str = ""
    block: Block | None = None
    options: tuple[Row, ...] = ()
    """Words that may stand within the line, each with its value: their kinds have ``take``."""
    take: Take | None = None
    takes: int | None = None
    """How many words after the keyword mean something; None: ``read`` sees to the others."""


class Row(Struct, frozen=True):
    """One keyword in one block."""

    name: str
    kind: Kind
    help: str
    field: str = ""
    """Where the value lands in ``Frame.fields``; empty: under the keyword's own name."""
    acts: bool = False
    """Does kad act on it yet? False: read, checked, and said at start to be without effect."""
    roles: tuple[Role, ...] = ()
    """Processes it concerns; empty: those of its block."""
    default: str = ""
    """For people; empty: the model's default."""
    repeat: Repeat = Repeat.LAST
    alias_of: str = ""
    deprecated: str = ""
    deprecated_status: int = ExitStatus.CONFIG_ERRORS
    early: bool = False
    """Of the top level: read before everything else, wherever it stands (global settings)."""

    @property
    def target(self) -> str:
        return self.field or self.name


def acting(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same rows as ones that kad acts on."""
    return tuple(structs.replace(row, acts=True) for row in rows)


class Block:
    """A block of statements: the rows that may stand in it, and what it becomes."""

    __slots__ = (
        "close",
        "has_early",
        "item",
        "model",
        "open",
        "parameters",
        "path",
        "roles",
        "rows",
        "table",
    )

    def __init__(
        self,
        path: str,
        rows: tuple[Row, ...],
        *,
        item: Row | None = None,
        open: Callable[[Reading, Frame], bool] | None = None,
        close: Callable[[Reading, Frame], Any] | None = None,
        model: type[Struct] | None = None,
        roles: tuple[Role, ...] = VRRP,
        parameters: int = 0,
    ) -> None:
        self.path = path
        """As in docs/keywords.md: ``vrrp_instance/authentication``."""
        self.has_early = any(row.early for row in rows)
        """Some of its rows are read before the others, wherever they stand."""
        self.rows = rows
        self.item = item
        self.open = open
        self.close = close
        self.model = model
        """The Struct whose defaults the rows' fields have."""
        self.roles = roles
        self.parameters = parameters
        """How many words may follow the keyword before the brace; -1: one name (``open`` judges)."""
        self.table = {row.name: row for row in rows}
        if len(self.table) != len(rows):
            raise ValueError(f"{path}: a keyword has two rows")


class Frame:
    """A block while it is being read."""

    __slots__ = ("block", "dormant", "fields", "items", "name", "parent", "places", "statement")

    def __init__(self, block: Block, statement: Statement | None, parent: Frame | None) -> None:
        self.block = block
        self.statement = statement
        """The statement that opened it; None for the root."""
        self.parent = parent
        self.fields: dict[str, Any] = {}
        self.places: dict[str, Statement] = {}
        """Field -> the statement that last set it."""
        self.items: list[Any] = []
        self.dormant: bool = parent is not None and parent.dormant
        """Does the block as a whole not act yet? Then its keywords are not told one by one."""
        self.name = ""
        if statement is not None and len(statement.texts) > 1:
            end = block.parameters + 1 if block.parameters >= 0 else None
            self.name = " ".join(statement.texts[1:end])

    def path(self) -> str:
        """For the identity of findings: block names outwards, by name, without lines."""
        parts = []
        frame: Frame | None = self
        while frame is not None and frame.statement is not None:
            parts.append(f"{frame.statement.texts[0]} {frame.name}".rstrip())
            frame = frame.parent
        return " / ".join(reversed(parts))

    def inherited(self, field: str, default: Any = None) -> Any:
        """The value of ``field`` here or in the nearest block around."""
        frame: Frame | None = self
        while frame is not None:
            if field in frame.fields:
                return frame.fields[field]
            frame = frame.parent
        return default

    def place(self, field: str) -> Statement | None:
        """The statement that set ``field``, else the one that opened the block."""
        return self.places.get(field, self.statement)


class Reading:
    """The state of reading one configuration: what was found, and what was defined so far."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine
        """What this machine has; None: the text alone is judged (``--offline``)."""
        self.diagnostics: list[Diagnostic] = []
        self.root: Frame
        self.frames: list[Frame] = []
        """Every nested one."""
        self.globals: dict[str, Any] = {}
        """The fields of global_defs. They are read first, wherever the block stands."""
        self.global_places: dict[str, Statement] = {}
        """Field of global_defs -> the statement that last set it."""
        self.defined: dict[str, dict[str, Any]] = {}
        """Keyword of a defining block -> name -> what it defined, as far as the file has been read."""
        self.lost: set[tuple[str, str]] = set()
        """Keyword and name of definitions that this machine has not what they need for, and that is said."""
        self.suggestions = 0
        self.strayed = False
        """Is there a block that keepalived does not know (see kad.config.straying)?"""
        self.missing_interface = False
        """Has an interface been named that does not exist?"""
        self.default_identity: object = None
        """As whom scripts without a user of their own run, once found out (kad.config.scripts)."""
        self._names: Names | None = None
        self.dormant: dict[tuple[str, str], Statement] = {}
        """(block path, keyword) -> first use, for keywords that are read but do not act yet."""

    def end(self) -> None:
        """Everything has been read. Frames and the blocks around them hold each other no longer.

        They go away with the reading then, and no search for garbage has to find them.
        """
        for frame in self.frames:
            frame.parent = None
        self.frames.clear()

    @property
    def names(self) -> Names:
        """iproute2's names, from the directories that global_defs says."""
        if self._names is None:
            local = self.globals.get("iproute_etc_dir", USUAL_LOCAL)
            vendor = self.globals.get("iproute_usr_dir", USUAL_VENDOR)
            self._names = Names(self.machine, local, vendor)
        return self._names

    def require_interface(
        self, frame: Frame, statement: Statement, index: int, *, status: int = ExitStatus.CONFIG_ERRORS
    ) -> bool:
        """Does the interface named by word ``index`` exist (or may it come later)? False after reporting."""
        name = statement.texts[index]
        if self.machine is None or self.globals.get("settings.dynamic_interfaces"):
            return True
        if self.machine.has_interface(name):
            return True
        self.missing_interface = True
        # Like keepalived, kad knows interfaces by the name that the kernel tells of changes with.
        real = self.machine.interface_called(name)
        self.error(
            "no-interface",
            f"the interface '{name}' does not exist",
            frame,
            statement,
            index,
            remedy=f"write {real}: this is another name of it"
            if real
            else "create it, or say 'dynamic_interfaces' in global_defs",
            status=status,
            machine=True,
        )
        return False

    def define(self, keyword: str, name: str, value: Any) -> None:
        self.defined.setdefault(keyword, {})[name] = value

    def definition(self, keyword: str, name: str) -> Any:
        """What ``name`` was defined as above this line, or None."""
        return self.defined.get(keyword, {}).get(name)

    def report(
        self,
        severity: Severity,
        code: str,
        message: str,
        frame: Frame | None,
        statement: Statement | None,
        word: int | None = None,
        *,
        remedy: str = "",
        status: int = ExitStatus.CONFIG_ERRORS,
        machine: bool = False,
    ) -> None:
        """Add a finding. ``word`` is the index of the word it is about; None: the whole statement."""
        span, line, about = _place(statement, word)
        path = frame.path() if frame is not None else ""
        self.diagnostics.append(
            Diagnostic(
                severity=severity,
                code=code,
                message=message,
                span=span,
                remedy=remedy,
                identity=f"{code}|{path}|{about}",
                machine=machine,
                exit_status=status,
                source_line=line,
            )
        )

    def error(
        self,
        code: str,
        message: str,
        frame: Frame | None,
        statement: Statement | None,
        word: int | None = None,
        *,
        remedy: str = "",
        status: int = ExitStatus.CONFIG_ERRORS,
        machine: bool = False,
    ) -> None:
        """Something written that will not take effect or cannot be right."""
        self.report(
            Severity.ERROR,
            code,
            message,
            frame,
            statement,
            word,
            remedy=remedy,
            status=status,
            machine=machine,
        )

    def warning(
        self,
        code: str,
        message: str,
        frame: Frame | None,
        statement: Statement | None,
        word: int | None = None,
        *,
        remedy: str = "",
        status: int = ExitStatus.CONFIG_ERRORS,
    ) -> None:
        """It takes effect, perhaps altered: deprecated, truncated, rounded."""
        self.report(Severity.WARNING, code, message, frame, statement, word, remedy=remedy, status=status)

    def fatal(
        self,
        code: str,
        message: str,
        frame: Frame | None,
        statement: Statement | None,
        word: int | None = None,
        *,
        remedy: str = "",
        status: int = ExitStatus.CONFIG_ERRORS,
    ) -> None:
        """The configuration cannot be run; keepalived would not start with it either."""
        self.report(Severity.FATAL, code, message, frame, statement, word, remedy=remedy, status=status)

    def missing(self, frame: Frame, statement: Statement, what: str = "value", *, soft: bool = False) -> None:
        """A keyword lacks its argument: keepalived stops at once with status 2; ``soft``: it says so."""
        if soft:
            keyword = statement.texts[0]
            self.error("missing-value", f"'{keyword}' lacks its {what}; ignored", frame, statement, 0)
            return
        keyword = statement.texts[0]
        self.fatal(
            "missing-argument",
            f"'{keyword}' lacks its {what}",
            frame,
            statement,
            0,
            remedy=f"write '{keyword} {what.upper()}', or remove the line",
            status=ExitStatus.MISSING_ARGUMENT,
        )


def _place(statement: Statement | None, word: int | None) -> tuple[Span | None, str, str]:
    if statement is None:
        return None, "", ""
    about = " ".join(statement.texts)
    if word == CLOSING and statement.closing is not None:
        # The one character of the line that is known by now, where it stands.
        return statement.closing, "}".rjust(statement.closing.column), about
    if word is None or word < 0:
        word = 0
    words = statement.words
    span = words[min(word, len(words) - 1)].span
    return span, statement.source_line, about


def opens(block: Block) -> Kind:
    """The kind of a keyword that opens ``block``."""
    names = "" if block.parameters == 0 else " …" if block.parameters == 2 else " NAME"
    return Kind("block" + names, block=block)
