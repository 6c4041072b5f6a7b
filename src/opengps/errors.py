"""Errors of the site, in the one shape that pages and API share."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ErrorDetail(BaseModel):
    """One error."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(examples=["unknown_model"])
    """A fixed identifier for programs."""
    message: str
    """A sentence for people: the thing, the value, the remedy."""
    field: str | None = Field(None, examples=["model"])
    """The field, header or part of the address it refers to."""


class ErrorResponse(BaseModel):
    """The body of every error."""

    model_config = ConfigDict(extra="forbid")

    errors: list[ErrorDetail]


class RequestError(Exception):
    """A request that is refused.

    Parameters
    ----------
    status
        HTTP status.
    errors
        Everything that is wrong with the request.
    retry_after
        Seconds after which the same request may succeed.
    challenge
        How to authenticate, for status 401: the header ``WWW-Authenticate``.
    """

    def __init__(
        self,
        status: int,
        errors: Sequence[ErrorDetail],
        retry_after: int | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.status, self.errors = status, list(errors)
        self.retry_after, self.challenge = retry_after, challenge

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all of it, and not only the message."""
        return type(self), (self.status, self.errors, self.retry_after, self.challenge)


class TooLargeError(Exception):
    """An upload exceeds a limit in bytes."""


def request_error(
    status: int, code: str, message: str, field: str | None = None, retry_after: int | None = None
) -> RequestError:
    """Return the exception for a request with one error."""
    return RequestError(status, [ErrorDetail(code=code, message=message, field=field)], retry_after)


def unauthorized(message: str, challenge: str) -> RequestError:
    """Return the exception for a request without the token that it needs."""
    detail = ErrorDetail(code="unauthorized", message=message, field="Authorization")
    return RequestError(401, [detail], challenge=challenge)


def not_found(message: str, field: str) -> RequestError:
    """Return the exception for something that does not exist."""
    return request_error(404, "not_found", message, field)


def validation_error(errors: Sequence[Mapping[str, Any]]) -> RequestError:
    """Return the exception for the errors of pydantic."""
    return RequestError(
        422,
        [
            ErrorDetail(
                code="validation_error", message=_sentence(error["msg"]), field=_field_name(error["loc"])
            )
            for error in errors
        ],
    )


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _field_name(location: Sequence[str | int]) -> str | None:
    # Neither the place of a parameter nor the kind of a pixel size is a field.
    parts = [str(part) for part in location if part not in ("body", "query", "path", "micrometres")]
    return ".".join(parts) or None
