"""One family of errors. Each is one line that says what was found, what was expected and what to do about it."""

from __future__ import annotations

from importlib.util import find_spec


class PointCentroidError(Exception):
    """Anything a person can put right; the command line prints its message and nothing else."""

    @property
    def reason(self) -> str:
        """What is wrong, to stand beside the name of a file."""
        return str(self)


class ReadError(PointCentroidError):
    """A file could not be turned into a shape.

    Args:
        path: the file, as the person named it.
        problem: what was found, what was expected, what to do.
        line: 1-based line of the file, where one is to blame.
    """

    def __init__(self, path: object, problem: str, line: int | None = None) -> None:
        self.path = str(path)
        self.problem = problem
        self.line = line
        super().__init__(f"{path}: {self.reason}")

    @property
    def reason(self) -> str:
        """What is wrong, without the name of the file."""
        return self.problem if self.line is None else f"line {self.line}: {self.problem}"

    def __reduce__(self) -> tuple:
        # Errors cross process boundaries; the default would rebuild them from the formatted message alone.
        return type(self), (self.path, self.problem, self.line)


class MissingExtraError(PointCentroidError):
    """An optional dependency is absent; the message holds the pip line that brings it.

    Args:
        purpose: what needs it, as the start of a sentence ("reading LAS files").
        extra: the name of the extra in pyproject.toml.
        missing: the module that could not be imported.
    """

    def __init__(self, purpose: str, extra: str, missing: str) -> None:
        self.purpose = purpose
        self.extra = extra
        self.missing = missing
        super().__init__(f"{purpose} needs {missing}, which is not installed: pip install 'pointcentroid[{extra}]'")

    def __reduce__(self) -> tuple:
        return type(self), (self.purpose, self.extra, self.missing)


def one_line(error: BaseException, most: int = 160) -> str:
    """What an error of somebody else's code says, as part of a line of ours: its first `most` characters, else its type."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def shortened(text: str, most: int = 60) -> str:
    """What a file holds, as part of a message: its first characters, where there are more than so many."""
    return text if len(text) <= most else text[: most - 3] + "..."


def printable(text: str) -> str:
    """A name in which characters that steer a terminal stand as Python writes them."""
    return "".join(repr(each)[1:-1] if ord(each) < 32 or 127 <= ord(each) < 160 else each for each in text)


def reason_of(error: ReadError | MissingExtraError | OSError) -> str:
    """Why a file could not be read, or what is made of it not written, without its name."""
    return error.strerror or str(error) if isinstance(error, OSError) else error.reason


TOO_LARGE = "needs more memory than there is; the file is very large or damaged"


def unforeseen(error: BaseException) -> str:
    """What is said of a file where a library raised what nobody expects of it."""
    return f"unexpected {type(error).__name__}: {one_line(error)}; if the file is sound, please report this"


def require(purpose: str, extra: str, *modules: str) -> None:
    """Check that optional dependencies are there, without importing them.

    Args:
        purpose: what needs them, as the start of a sentence.
        extra: the name of the extra that brings them.
        modules: their top-level modules.

    Raises:
        MissingExtraError: one is absent.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(purpose, extra, module)


class ConfigError(PointCentroidError):
    """A configuration contradicts itself or names something that does not exist."""


class WeightsError(PointCentroidError):
    """A weights file is absent, damaged, or does not fit the model it describes."""


class DataError(PointCentroidError):
    """A data set is absent, damaged or not what was asked for."""


class TrainingError(PointCentroidError):
    """A training run cannot start, or cannot go on."""


class DisplayError(PointCentroidError):
    """There is no screen, or a system library that drawing needs is missing."""
