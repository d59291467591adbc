"""What goes wrong at an S3 store: what may go better the next time, and the rest in one line.

No text of a library is passed on that could hold an address with a key in it, or a signature.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)
from botocore.parsers import ResponseParserError

from pipeline.errors import NoPermissionError, StoreError

ERRORS = (BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError)
"""All that a request may raise."""

_PASSING = (
    *(HTTPClientError, IncompleteReadError, ResponseParserError, aiohttp.ClientError),
    *(ConnectionError, EndpointConnectionError, TimeoutError),
)
_BUSY = {
    *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted"),
    *("ConditionalRequestConflict", "XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody"),
}
_KEYS_REFUSED = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
    *("TokenRefreshRequired", "RequestTimeTooSkewed", "InvalidSecurity", "NotSignedUp"),
}
_ELSEWHERE = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed"}


class CutShortError(ConnectionError):
    """A body had fewer bytes than were asked for, or more."""


def status(error: BaseException) -> int:
    """The HTTP status that the store answered with; 0 when it did not answer."""
    return _answer(error)[0]


def passes(error: Exception) -> bool:
    """Whether another try may go better."""
    status, code = _answer(error)
    if status or code:
        return code in _BUSY or status == 429 or (status >= 500 and status != 501)
    return isinstance(error, _PASSING)


def named(endpoint: str, error: Exception) -> str:
    """A few words for an error."""
    status, code = _answer(error)
    where = _host(endpoint)
    if status or code:
        return f"{code} {where}" if code == str(status) else f"{status} {code} {where}"
    cause = getattr(error, "kwargs", {}).get("error")
    if isinstance(cause, aiohttp.ClientConnectorError):
        return f"nobody answers {where} (AWS_ENDPOINT_URL, or the network)"
    if isinstance(error, EndpointConnectionError):  # as aiobotocore calls all of these
        return f"the connection was lost {where}"
    if isinstance(error, CutShortError):
        return f"{error} {where}"
    if isinstance(error, _PASSING):
        return f"{type(error).__name__} {where}"
    return " ".join(str(error).split())  # of botocore's settings: a profile, a region, a name


def explained(url: str, endpoint: str, error: Exception) -> Exception:
    """What to raise for an error that another try does not mend."""
    status, code = _answer(error)
    if status == 412:
        return FileExistsError(url)
    if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
        return FileNotFoundError(url)
    denied = isinstance(error, PermissionError) or status in (401, 403)
    if denied and code not in _KEYS_REFUSED:
        return NoPermissionError(
            f"{url}: no permission ({code}); these credentials must be allowed to list the bucket, "
            "to read here and, for an output, to write and delete"
        )
    return StoreError(
        f"{url}: {_advice(_host(endpoint), status, code, error, named(endpoint, error))}"
    )


def _advice(where: str, status: int, code: str, error: Exception, name: str) -> str:
    keys = "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return f"there is no such bucket {where}; create it, or correct the url"
    if code in _KEYS_REFUSED:
        return f"the credentials are refused ({code}); renew them, or name others with {keys}"
    if code in _ELSEWHERE:
        return f"the bucket is elsewhere, not {where}; set AWS_REGION, or AWS_ENDPOINT_URL"
    if status == 501:
        return f"not supported ({name}); wanted a store with conditional writes (If-None-Match)"
    if isinstance(error, NoCredentialsError):
        return f"found no credentials; set {keys}, or run where a role gives them"
    return f"the object store refuses: {name}"


def _answer(error: BaseException) -> tuple[int, str]:
    """HTTP status and code of the store's answer; (0, "") when it is none."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return 0, ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def _host(endpoint: str) -> str:
    """The host of an address, without whatever else it holds."""
    if not endpoint:
        return "where it was looked for"
    parts = urlsplit(endpoint)
    return f"at {parts.hostname}" + (f":{parts.port}" if parts.port else "")
