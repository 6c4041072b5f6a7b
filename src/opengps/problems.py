"""What can be wrong with a request, in the one shape that pages and API share."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """One thing that is wrong."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(examples=["unknown_model"])
    """A word for programs."""
    message: str
    """A sentence for people: the thing, the value, the remedy."""
    where: str | None = Field(None, examples=["model"])
    """The field, or the part of the address, that it concerns."""


class Problems(BaseModel):
    """Every error of the API."""

    model_config = ConfigDict(extra="forbid")

    errors: list[Problem]


class RefusedError(Exception):
    """A request that is not served.

    Parameters
    ----------
    status
        HTTP status.
    problems
        What is wrong.
    retry_after
        Seconds after which the same request may succeed.
    """

    def __init__(self, status: int, problems: Sequence[Problem], retry_after: int | None = None) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.status, self.problems, self.retry_after = status, list(problems), retry_after


def refused(
    status: int, code: str, message: str, where: str | None = None, retry_after: int | None = None
) -> RefusedError:
    """Make the error of a request with one thing wrong."""
    return RefusedError(status, [Problem(code=code, message=message, where=where)], retry_after)


def not_found(what: str, where: str) -> RefusedError:
    """Make the error for a thing that is not there."""
    return refused(404, "not_found", what, where)
