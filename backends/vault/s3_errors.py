"""What a fault of an S3 provider means for somebody who keeps backups there.

The provider's own message is never shown: it may repeat an access key, and it comes from outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as aws

from backends.errors import AlreadyExists, MastovaultError, NotFound, VaultDenied, VaultError, VaultFull
from backends.untrusted import clean

_GUIDE = "docs/s3.md says what is needed."
_STATUS_AGAIN = frozenset({429, 500, 502, 503, 504})
_CODES_AGAIN = re.compile(
    r"SlowDown\w*|InternalError|ServiceUnavailable|ServerBusy|RequestTimeout(Exception)?|TooManyRequests\w*|Busy"
    r"|Throttl\w*|RequestLimitExceeded|BandwidthLimitExceeded|BadDigest|XAmzContentSHA256Mismatch|IncompleteBody"
)
_FULL = re.compile(r"(?i).*quota.*|.*storage_?full.*|insufficient_?storage|.*no_?space.*|.*cap_?exceeded.*")
_NO_SUCH = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_WRONG_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"})
_UNKNOWN_KEYS = frozenset({"InvalidAccessKeyId", "InvalidSecurity", "UnrecognizedClientException", "NotSignedUp"})
_NOT_THERE = frozenset({"NotImplemented", "XNotImplemented", "NotSupported", "ObjectLockConfigurationNotFoundError"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"})

ACTIONS = {
    "AbortMultipartUpload": ("remove an unfinished upload", "s3:AbortMultipartUpload"),
    "CompleteMultipartUpload": ("write objects", "s3:PutObject"),
    "CreateMultipartUpload": ("write objects", "s3:PutObject"),
    "DeleteObject": ("delete objects", "s3:DeleteObject"),
    "GetBucketVersioning": ("ask for versioning", "s3:GetBucketVersioning"),
    "GetObject": ("read objects", "s3:GetObject"),
    "GetObjectLockConfiguration": ("ask for the Object Lock settings", "s3:GetBucketObjectLockConfiguration"),
    "HeadObject": ("read objects", "s3:GetObject and s3:ListBucket"),
    "ListMultipartUploads": ("list unfinished uploads", "s3:ListBucketMultipartUploads"),
    "ListObjectsV2": ("list objects", "s3:ListBucket"),
    "PutObject": ("write objects", "s3:PutObject"),
    "UploadPart": ("write objects", "s3:PutObject"),
}
"""By operation: what it is for, and the right that it needs."""


class VaultGone(VaultError):
    """A whole bucket cannot be asked: not reachable, not there, or it does not know these credentials."""


class NotSupported(VaultError):
    """The provider does not know this operation, or this condition on it."""


class UploadGone(VaultError):
    """The provider does not know this multipart upload (any more)."""


class Conflict(VaultError):
    """Another write of the same object was going on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the sentences name."""

    where: str
    endpoint: str
    """Host name of the endpoint; empty for AWS."""
    locked: bool = False
    """Whether objects are put under an Object Lock."""


def code_of(error: Exception) -> str:
    """The provider's error code, cleaned; empty when it is no answer of the provider."""
    return clean(str(_part(error, "Error").get("Code", "")), 60) if isinstance(error, aws.ClientError) else ""


def status_of(error: Exception) -> int:
    """The HTTP status of the answer; 0 when there was none."""
    status = _part(error, "ResponseMetadata").get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


def may_pass(error: Exception) -> bool:
    """Whether a fault can pass on its own: throttling, a server's hiccup, a lost connection; never a full bucket."""
    if isinstance(error, aws.ClientError):
        if _is_full(error):
            return False
        return status_of(error) in _STATUS_AGAIN or bool(_CODES_AGAIN.fullmatch(code_of(error)))
    if isinstance(error, aws.SSLError):
        return "CERTIFICATE" not in str(error).upper()
    return isinstance(error, aws.HTTPClientError | aws.ConnectionError)


class Circle(Exception):
    """Every request is sent elsewhere, without end; botocore would follow until Python's stack is full."""


def explain(error: Exception, place: Place, operation: str, key: str = "") -> VaultError:
    """One sentence and the next step. Holds nothing of what the provider said but its error code."""
    if isinstance(error, VaultError):
        return error
    if isinstance(error, MastovaultError):
        return VaultGone(error.sentence, error.next_step)
    if isinstance(error, Circle):
        return VaultGone(
            f"{place.where} sends every request elsewhere: the bucket is in another region, or the address is not S3's",
            "Set `region`, and see whether endpoint_url should begin with https.",
        )
    if isinstance(error, aws.ClientError):
        return _answered(error, place, operation, key)
    return _unanswered(error, place)


def _answered(error: aws.ClientError, place: Place, operation: str, key: str) -> VaultError:
    code, status = code_of(error), status_of(error)
    where = place.where
    found: VaultError | None = None
    if code == "NoSuchBucket":
        return VaultGone(f"the bucket of {where} is not there", "Check bucket and endpoint_url, or create the bucket.")
    if code == "NoSuchUpload":
        return UploadGone(f"{where} has given up an upload before it was complete", "Start the backup again.")
    if code in _NO_SUCH or (status == 404 and not code):
        return NotFound(f"{key} is not in {where}", "It may have been pruned; refresh.")
    if code == "PreconditionFailed" or status == 412:
        return AlreadyExists(f"{key} is already in {where}", "Nothing was changed.")
    if code in {"ConditionalRequestConflict", "OperationAborted"} or (status == 409 and code in {"", "409"}):
        return Conflict(f"something else writes {key} in {where}", "Try again.")
    if _is_full(error):
        return VaultFull(
            f"no room left in {where} ({code or status})", "Raise the quota there, or prune old snapshots."
        )
    if found := _credentials(error, code, place):
        return found
    if code in _WRONG_REGION or status in {301, 307}:
        region = _region(error)
        named = (
            f'Set region = "{region}" for the vault.' if region else "Set region of the vault to the bucket's region."
        )
        return VaultGone(f"the bucket of {where} is in {region or 'another region'}", named)
    if found := _refused(error, code, status, place, key):
        return found
    if status == 403 or code in {"AccessDenied", "AllAccessDisabled", "MethodNotAllowed"}:
        doing, right = ACTIONS.get(operation, ("do this", operation))
        return VaultDenied(f"{where} does not let these credentials {doing}", f"Grant {right}; {_GUIDE}")
    if (
        code in {"NotImplemented", "XNotImplemented", "NotSupported", "ObjectLockConfigurationNotFoundError"}
        or status == 501
    ):
        return NotSupported(f"{where} does not know {operation}", _GUIDE)
    if may_pass(error):
        return VaultError(f"{where} is overloaded or out of order ({code or status})", "Try again later.")
    return VaultError(f"{where} refused {operation} ({code or status or 'no reason given'})", _GUIDE)


def _credentials(error: aws.ClientError, code: str, place: Place) -> VaultError | None:
    """Faults of who we say we are; they are the same for every object."""
    where = place.where
    if code in _UNKNOWN_KEYS:
        return VaultGone(f"{where} does not know the access key", "Check the credentials of the vault.")
    if code == "SignatureDoesNotMatch":
        return VaultGone(
            f"{where} does not accept the secret key", "Check the secret key of the vault; is it complete?"
        )
    if code in _EXPIRED:
        return VaultGone(f"the credentials for {where} have expired", "Renew them.")
    if code in {"RequestTimeTooSkewed", "RequestExpired", "AccessDeniedClockSkew"}:
        return VaultGone(f"{where} says that the clock of this machine is wrong{_skew(error)}", "Set the clock.")
    return None


def _refused(error: aws.ClientError, code: str, status: int, place: Place, key: str) -> VaultError | None:
    """Faults of one object, or of the settings of the vault."""
    where = place.where
    said = str(_part(error, "Error").get("Message", ""))[:500].lower()
    if code == "InvalidObjectState":
        return VaultError(
            f"{key} in {where} is archived and cannot be read", "Restore (thaw) it at the provider first."
        )
    if code == "EntityTooLarge" or status == 413:
        return VaultError(f"{key} is larger than {where} takes in one piece", "Ask the provider for its limits.")
    if code == "InvalidStorageClass":
        return VaultError(f"{where} does not know that storage class", "Correct storage_class of the vault.")
    if (
        place.locked
        and "lock" in said
        and code in {"InvalidRequest", "InvalidArgument", "ObjectLockConfigurationNotFoundError"}
    ):
        return VaultError(
            f"the bucket of {where} has no Object Lock", "Make a bucket with Object Lock, or remove lock_days."
        )
    if code == "AccessDenied" and "lock" in said:
        return VaultDenied(f"{key} in {where} is under an Object Lock", "It can be removed when the lock has ended.")
    if code.startswith("KMS") or "kms" in said:
        return VaultDenied(f"{where} may not use the encryption key ({code})", "Check sse_kms_key and its key policy.")
    return None


def _unanswered(error: Exception, place: Place) -> VaultError:
    where = place.where
    by = place.endpoint or "S3"
    if isinstance(error, RecursionError):  # botocore asks for the region again and again
        return VaultGone(
            f"the bucket of {where} is in another region", "Set region of the vault to that of the bucket."
        )
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.CredentialRetrievalError):
        return VaultGone(f"there are no credentials for {where}", f"Give the vault some; {_GUIDE}")
    if isinstance(error, aws.ProfileNotFound):
        return VaultGone(f"the profile for {where} is not in ~/.aws", "Correct profile of the vault.")
    if isinstance(error, aws.TokenRetrievalError | aws.SSOError | aws.UnauthorizedSSOTokenError):
        return VaultGone(f"the login for {where} has expired", "Run: aws sso login")
    if isinstance(error, aws.SSLError):
        why = "its certificate is not trusted" if "CERTIFICATE" in str(error).upper() else "TLS failed"
        return VaultGone(
            f"{by} cannot be used: {why}", "Check endpoint_url; AWS_CA_BUNDLE names an authority of yours."
        )
    if isinstance(error, aws.ProxyConnectionError):
        return VaultGone(f"{by} cannot be reached through the proxy", "Check HTTPS_PROXY and NO_PROXY.")
    if isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError):
        return VaultGone(f"{by} cannot be reached", "Check endpoint_url, the network and the firewall.")
    if isinstance(error, aws.HTTPClientError | aws.ConnectionError):
        return VaultGone(f"the connection to {by} was lost", "Check the network; try again.")
    if isinstance(error, aws.ParamValidationError | aws.InvalidRegionError | aws.UnknownEndpointError | ValueError):
        return VaultGone(
            f"the settings of {where} are not usable", "Check bucket, region, endpoint_url and addressing."
        )
    return VaultError(f"{where} failed: {type(error).__name__}", "See the run's log.")


def _is_full(error: aws.ClientError) -> bool:
    said = str(_part(error, "Error").get("Message", ""))[:500]
    return status_of(error) == 507 or bool(_FULL.fullmatch(code_of(error))) or "cap exceeded" in said.lower()


def _region(error: aws.ClientError) -> str:
    headers = _part(error, "ResponseMetadata").get("HTTPHeaders", {})
    region = _part(error, "Error").get("Region") or headers.get("x-amz-bucket-region") or ""
    return clean(str(region), 40) if re.fullmatch(r"[a-z0-9-]{1,40}", str(region)) else ""


def _skew(error: aws.ClientError) -> str:
    """`, by 2 days`; empty when the provider does not say what time it is."""
    headers = _part(error, "ResponseMetadata").get("HTTPHeaders", {})
    try:
        theirs = parsedate_to_datetime(str(headers.get("date", "")))
        seconds = abs((datetime.now(UTC) - theirs).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return ""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f", by {seconds / size:.0f} {unit}"
    return ""


def _part(error: Exception, name: str) -> dict[str, Any]:
    response = getattr(error, "response", None)
    part = response.get(name) if isinstance(response, dict) else None
    return part if isinstance(part, dict) else {}
