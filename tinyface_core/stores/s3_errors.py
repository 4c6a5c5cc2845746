"""What an exception of the S3 client means: for one object, for another try, or for the whole run."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from tinyface_core.errors import StorageError
from tinyface_core.stores.base import Damaged, ObjectChanged, ObjectDenied, ObjectError, ObjectMissing, Transient

_CREDENTIALS = {
    "ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidAccessKeyId", "InvalidToken", "InvalidSecurity",
    "InvalidClientTokenId", "SignatureDoesNotMatch", "TokenRefreshRequired", "RequestTimeTooSkewed",
    "UnrecognizedClientException", "AuthorizationHeaderMalformed", "NotSignedUp", "AccountProblem",
}  # fmt: skip
_MISSING = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404", "KeyTooLongError", "InvalidURI", "InvalidBucketName"}
_CHANGED = {"PreconditionFailed", "412"}
_AGAIN = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout", "InternalError",
    "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict", "BadDigest", "IncompleteBody",
    "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
}  # fmt: skip
_SETTINGS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.ProfileNotFound,
    boto.SSOError,
    boto.SSLError,
    ssl.SSLCertVerificationError,
)
_NETWORK = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    boto.ReadTimeoutError,
    ResponseParserError,
    aiohttp.ClientError,
    TimeoutError,
    EOFError,
    OSError,
)
_MEND = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, --profile, or give --anonymous for a public bucket"


def translate(error: Exception, uri: str, hide: Callable[[str], str]) -> Exception:
    """The error to raise instead: an ObjectError, Transient, StorageError, or `error` itself where it is a bug."""
    if isinstance(error, ObjectError | Transient | StorageError):
        return error
    cause = error.__cause__ if isinstance(error.__cause__, boto.ClientError) else error
    shown = hide(f"{uri}: {cause}")
    if isinstance(cause, boto.ClientError):
        return _of_answer(cause, uri, hide)
    if isinstance(cause, _SETTINGS):
        return StorageError(f"{shown}: {_MEND}")
    if isinstance(cause, boto.ParamValidationError):  # a bucket or key that S3 cannot have
        return ObjectMissing(shown)
    if isinstance(cause, boto.ChecksumError | boto.FlexibleChecksumError):
        return Damaged(f"the bytes do not match the checksum that the store holds: {cause}")
    if isinstance(cause, _NETWORK):
        return Transient(hide(f"{type(cause).__name__}: {str(cause) or 'no answer in time'}"))
    if isinstance(cause, boto.BotoCoreError):
        return StorageError(shown)
    return error


def needs_a_body(error: Exception) -> bool:
    """Whether `error` came without the code that tells a bad key from a denied object (answers to HEAD have none)."""
    return isinstance(error, ObjectDenied) and error.code in ("403", "400", "")


def _of_answer(error: boto.ClientError, uri: str, hide: Callable[[str], str]) -> Exception:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    shown = hide(f"{uri}: {code}: {str(answer.get('Message', '')).rstrip('.') or error}")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
    if code in _CREDENTIALS:
        return StorageError(f"{shown}: {_MEND}")
    if code in _CHANGED:
        return ObjectChanged(f"{uri}: changed since it was listed ({code})")
    if code in _AGAIN or status >= 500 or status == 429:
        return Transient(shown)
    if code in _MISSING or status == 404:
        return ObjectMissing(f"{uri}: no such object ({code})")
    if status == 403 or code in ("400", ""):
        return ObjectDenied(shown, code)
    return StorageError(shown)
