"""Import libraries without the parts that are never used here; some bring ten times what is needed.

Meant for the daemon's process (``cli/run.py``) and for a command's own process (``cli``), before anything
else is imported there; the tests and whoever imports the package get everything as it is. No library is
changed: some of the modules that it would import are replaced by substitutes. Where that does not work
(another version, another layout) the ordinary import is done, which only costs memory. Most substitutes
import the real module when one of its functions is called after all.

=================  ==============================================  ========================================
library            what would come with it                         instead
=================  ==============================================  ========================================
prometheus_client  its servers and push clients: ``http.server``,  the package's ``__init__`` is not run, and
                   ``ssl``, ``urllib.request``, ``wsgiref``,       its ``exposition`` finds stand-ins for
                   ``email``, ``gzip`` ...; its own instruments    the modules of the servers
hashlib            OpenSSL's libcrypto, through ``_hashlib``       the interpreter's own hashes
msgspec            ``typing_extensions`` and with it ``inspect``,  ``typing``, which msgspec takes when the
                   where that happens to be installed              other is absent
msgspec            ``decimal``, ``uuid`` and with it ``platform``  empty classes: no type of ours has such a
                                                                   field
msgspec            ``inspect`` and the JSON Schema                 imported when a schema is asked for
argparse           ``gettext`` and with it ``locale``              functions that translate nothing: Python
                                                                   has no translations of its messages
pathlib            ``urllib.parse`` and with it ``ipaddress``      imported for ``as_uri()``
logging            ``traceback`` and with it ``tokenize``          imported when a traceback is written
systemd.journal    ``id128``, with it ``uuid`` and ``platform``;   imported when used
                   ``traceback``
pyudev             ``ctypes.util``, with it ``subprocess``,        its ``_ctypeslib.utils`` finds a search
                   ``shutil``, ``tempfile`` and two runs of        that knows the libraries' names
                   ldconfig
=================  ==============================================  ========================================

The daemon's own modules lose what only readers and type checkers want: the text at their top, and the
annotations of functions.

What each saves is in docs/footprint.md, measured by ``benchmarks/bench_footprint.py``.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:  # bases that add nothing, of a module that brings tempfile and shutil
    Loader = MetaPathFinder = object

#: what ``prometheus_client.exposition`` imports for its servers and push clients (0.16 to 0.26)
_SERVERS = (
    *("http.server", "socketserver", "ssl", "urllib.error", "urllib.request"),
    *("wsgiref", "wsgiref.simple_server"),
)
#: what ``pyudev`` loads with ctypes
_SONAMES = {"udev": "libudev.so.1", "c": "libc.so.6"}
#: the interpreter's own hashes, without which ``hashlib`` needs OpenSSL's (some distributions leave them
#: out): until Python 3.11, and from 3.12 on
_HASHES = (
    ("_md5", "_sha1", "_sha256", "_sha512", "_sha3", "_blake2"),
    ("_md5", "_sha1", "_sha2", "_sha3", "_blake2"),
)


#: the project's own modules
_OURS = __name__.partition(".")[0] + "."

_Answers = dict[str, ModuleType | None]


def install(*, bare: bool = False) -> None:
    """From now on this process imports the libraries above without what is named beside them; with ``bare``
    also the project's own modules, without their documentation."""
    for finder in sys.meta_path:
        if isinstance(finder, _Spare):
            finder.bare = finder.bare or bare
            return
    if any(all(map(find_spec, hashes)) for hashes in _HASHES) and "_hashlib" not in sys.modules:
        # stays: hmac would ask again
        sys.modules["_hashlib"] = None  # type: ignore[assignment]
    sys.meta_path.insert(0, _Spare(bare))


def forget(*names: str) -> None:
    """Drop modules that were needed for a moment, and those below them, so that their memory can be used
    again. The next import loads them anew."""
    for name in [name for name in list(sys.modules) if name.startswith(tuple(f"{one}." for one in names))]:
        _drop(name, sys.modules[name])
    for name in names:
        _drop(name, sys.modules.get(name))
    gc.unfreeze()  # the command line froze them (``cli``)
    gc.collect()


def _drop(name: str, module: ModuleType | None) -> None:
    """Take it out of ``sys.modules`` and out of its package, if it is there."""
    if name in sys.modules and sys.modules[name] is module:
        sys.modules.pop(name, None)
    package, _, own = name.rpartition(".")
    if module is not None and vars(sys.modules.get(package, module)).get(own) is module:
        delattr(sys.modules[package], own)


@contextmanager
def _answered_by(answers: _Answers) -> Iterator[None]:
    """In this context an import of one of these names that is not loaded yet gets the given module; with
    None it fails."""
    mine = {name: answer for name, answer in answers.items() if name not in sys.modules}
    sys.modules.update(mine)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, answer in mine.items():
            _drop(name, answer)


class _StandIn(ModuleType):
    """A module that has every name asked for: an empty class, fit to be a base or an annotation."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _WhenUsed(ModuleType):
    """A module that is imported when a name in it is asked for: for ``import x``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # the library uses it while it is loaded
            sys.modules.pop(self.__name__, None)
        return getattr(import_module(self.__name__), name)


def _when_called(module: str, *functions: str) -> ModuleType:
    """A module that is imported when one of these functions is called: for ``from x import f``."""

    def stand_in(name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: getattr(import_module(module), name)(*arguments, **options)

    answer = ModuleType(module)
    vars(answer).update({name: stand_in(name) for name in functions})
    return answer


class _Spare(MetaPathFinder):
    """Finds the modules of :data:`_OTHERWISE` and the project's own where they are, and has them loaded
    another way."""

    def __init__(self, bare: bool) -> None:
        self.bare = bare

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        bare = self.bare and fullname.startswith(_OURS)
        if fullname not in _OTHERWISE and not bare:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                if spec.loader is not None:
                    spec.loader = _Bare(spec.loader) if bare else _Spared(spec.loader, _OTHERWISE[fullname])
                return spec
        return None


class _Around(Loader):
    """The real loader, which is also asked for all else, as where a package has its files."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Spared(_Around):
    """Loads a module with other answers to what it imports, or does not run it at all."""

    def __init__(self, real: Loader, answers: Callable[[], _Answers] | None) -> None:
        super().__init__(real)
        self._answers = answers

    def exec_module(self, module: ModuleType) -> None:
        if self._answers is None:
            return
        answers = self._answers()
        whole = all(isinstance(answer, _WhenUsed) for answer in answers.values())
        threading = sys.modules.get("threading")  # who has threads has loaded it
        alone = threading is None or threading.active_count() == 1
        if not whole and not alone:  # another thread might ask for the real ones meanwhile
            self._real.exec_module(module)
            return
        try:
            with _answered_by(answers):
                self._real.exec_module(module)
        except Exception:  # it wants more of them than it gets
            self._real.exec_module(module)


class _Bare(_Around):
    """Loads a module and drops its documentation at once, so that the next modules use the room."""

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        module.__doc__ = None
        for one in list(vars(module).values()):
            if getattr(one, "__module__", None) != module.__name__:
                continue
            for member in vars(one).values() if isinstance(one, type) else (one,):
                function = getattr(member, "__func__", getattr(member, "fget", member))
                if isinstance(function, FunctionType):
                    _strip(function)


def _strip(function: FunctionType) -> None:
    """Drop its annotations, and its documentation, which its code keeps too."""
    del function.__annotations__
    if function.__doc__:
        code, function.__doc__ = function.__code__, None
        if code.co_consts and isinstance(code.co_consts[0], str):  # the documentation, where there is one
            function.__code__ = code.replace(co_consts=(None, *code.co_consts[1:]))


def _unused_types() -> _Answers:
    """What msgspec asks for when it is imported: classes to tell values by."""
    uuid = _StandIn("uuid")
    uuid.SafeUUID = type("SafeUUID", (), {"unknown": None})  # type: ignore[attr-defined]
    return {"typing_extensions": None, "decimal": _StandIn("decimal"), "uuid": uuid}


def _values_alone() -> _Answers:
    """What msgspec needs to convert values, not to describe types."""
    return {
        **_unused_types(),
        "msgspec.inspect": _WhenUsed("msgspec.inspect"),
        "msgspec._json_schema": _when_called("msgspec._json_schema", "schema", "schema_components"),
    }


def _servers() -> _Answers:
    return {
        **{name: _StandIn(name) for name in _SERVERS},
        **{name: _WhenUsed(name) for name in ("base64", "gzip")},
        "urllib.parse": _when_called("urllib.parse", "parse_qs", "quote_plus", "urlparse"),
    }


def _library_search() -> _Answers:
    module = ModuleType("ctypes.util")
    module.find_library = _find_library  # type: ignore[attr-defined]
    return {"ctypes.util": module}


def _find_library(name: str) -> str | None:
    import ctypes

    try:
        ctypes.CDLL(_SONAMES[name])
    except (KeyError, OSError):
        from ctypes.util import find_library

        return find_library(name)
    return _SONAMES[name]


def _untranslated() -> ModuleType:
    """``gettext`` for who has no translations, as argparse has none."""
    module = ModuleType("gettext")
    module.gettext = lambda message: message  # type: ignore[attr-defined]
    module.ngettext = lambda one, many, count: one if count == 1 else many  # type: ignore[attr-defined]
    return module


def _when_used(*names: str) -> Callable[[], _Answers]:
    return lambda: {name: _WhenUsed(name) for name in names}


#: module -> what it gets for its imports; None: it is not run (a package, whose modules then load singly)
_OTHERWISE: dict[str, Callable[[], _Answers] | None] = {
    "argparse": lambda: {"gettext": _untranslated()},
    "logging": _when_used("traceback"),
    "msgspec": _values_alone,
    "pathlib": lambda: {"urllib.parse": _when_called("urllib.parse", "quote_from_bytes")},
    "prometheus_client": None,
    "prometheus_client.exposition": _servers,
    "pyudev._ctypeslib.utils": _library_search,
    "systemd.journal": _when_used("systemd.id128", "traceback", "uuid"),
    "pyudev._util": lambda: {"subprocess": _StandIn("subprocess")},  # to ask udevadm for its version
}
