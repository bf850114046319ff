"""What a provider answers is hostile: any code, message or header gives one clean sentence."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as aws
from hypothesis import example, given
from hypothesis import strategies as st

from backends.errors import VaultError
from backends.untrusted import clean
from backends.vault.s3_bucket import Bucket, host_of
from backends.vault.s3_errors import ACTIONS, Place, explain, may_pass
from backends.vault.s3_listing import read_time

PLACE = Place(where="s3://bucket/prefix", endpoint="s3.example", locked=True)
CODES = st.sampled_from(
    ["AccessDenied", "SlowDown", "NoSuchKey", "InvalidRequest", "RequestTimeTooSkewed", "404", "301"]
)
VALUES = st.none() | st.integers() | st.text(max_size=40) | st.lists(st.text(max_size=5), max_size=2)
ERROR = st.dictionaries(st.sampled_from(["Code", "Message", "Region"]), CODES | VALUES)
META = st.fixed_dictionaries(
    {},
    optional={
        "HTTPStatusCode": st.sampled_from([200, 301, 400, 403, 404, 409, 412, 413, 500, 501, 503, 507]) | VALUES,
        "HTTPHeaders": st.dictionaries(st.sampled_from(["date", "x-amz-bucket-region"]), VALUES),
    },
)


@given(ERROR | VALUES, META | VALUES, st.sampled_from([*ACTIONS, "Other"]))
@example({"Code": "RequestTimeTooSkewed"}, {"HTTPHeaders": {"date": "Mon, 23 Nov 0001 00:00:00 -2359"}}, "GetObject")
def test_any_answer_has_a_clean_sentence(error: Any, meta: Any, operation: str) -> None:
    response = {"Error": error, "ResponseMetadata": meta}
    fault = aws.ClientError({"Error": {}}, operation)
    fault.response = response  # type: ignore[assignment]
    said = explain(fault, PLACE, operation, "hosts/a")
    assert said.sentence
    assert said.next_step
    assert clean(said.sentence) == said.sentence
    assert clean(said.next_step) == said.next_step
    assert may_pass(fault) in {True, False}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (aws.NoCredentialsError(), "no credentials"),
        (aws.ProfileNotFound(profile="x"), "the profile"),
        (aws.EndpointConnectionError(endpoint_url="u"), "s3.example cannot be reached"),
        (aws.ConnectTimeoutError(endpoint_url="u"), "s3.example cannot be reached"),
        (aws.ReadTimeoutError(endpoint_url="u"), "the connection to s3.example was lost"),
        (aws.SSLError(endpoint_url="u", error=OSError("CERTIFICATE_VERIFY_FAILED")), "certificate is not trusted"),
        (aws.SSLError(endpoint_url="u", error=OSError("WRONG_VERSION_NUMBER")), "TLS failed"),
        (aws.ProxyConnectionError(proxy_url="u"), "through the proxy"),
        (aws.ParamValidationError(report="Invalid bucket name"), "not usable"),
        (RecursionError(), "in another region"),
        (KeyError("x"), "failed: KeyError"),
    ],
)
def test_what_is_no_answer(error: Exception, said: str) -> None:
    found = explain(error, PLACE, "GetObject")
    assert said in found.sentence
    assert found.next_step


def test_only_what_can_pass_is_tried_again() -> None:
    lost = aws.ConnectionClosedError(endpoint_url="u")
    untrusted = aws.SSLError(endpoint_url="u", error=OSError("CERTIFICATE_VERIFY_FAILED"))
    assert may_pass(lost)
    assert not any(map(may_pass, (untrusted, aws.NoCredentialsError(), VaultError("x"), KeyError("x"))))
    for code, status, again in (("SlowDown", 503, True), ("AccessDenied", 403, False), ("QuotaExceeded", 503, False)):
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        assert may_pass(aws.ClientError(answer, "PutObject")) is again  # type: ignore[arg-type]


@given(st.text(max_size=60) | st.none())
def test_any_address_has_a_host_or_none(address: str | None) -> None:
    assert clean(host_of(address)) == host_of(address)


@pytest.mark.parametrize("text", ["2026-11-23T05:43:26.144Z", "2026-11-23T05:43:26Z"])
def test_times_of_listings(text: str) -> None:
    assert read_time(text).isoformat().startswith("2026-11-23T05:43:26")
    assert read_time(text).utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    assert read_time("Mon, 23 Nov 2026 05:43:26 GMT").isoformat() == "2026-11-23T05:43:26+00:00"


def test_a_bucket_asks_nothing_before_it_is_used() -> None:
    from backends.config.schema import S3Vault as S3Config

    bucket = Bucket("v", S3Config(type="s3", bucket="abc", access_key_env="MASTOVAULT_NO_SUCH"))
    bucket.close()
    bucket.close()
