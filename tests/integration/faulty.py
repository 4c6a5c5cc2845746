"""A store behind a network that fails: clients of it, and objects as they were put in other years."""

from __future__ import annotations

from tests.integration.fault_proxy import FaultProxy
from tests.integration.s3_server import S3Server
from tinyface_core.storage import Storage, StorageOptions


def through(proxy: FaultProxy, **extra: str) -> Storage:
    return Storage(StorageOptions(endpoint_url=proxy.endpoint, extra=tuple(extra.items())))


def put_bare(server: S3Server, bucket: str, key: str, data: bytes) -> str:
    """Puts an object as clients did before 2025, without a checksum beside it; gives its uri."""
    client = server.client()
    client.meta.config.request_checksum_calculation = "when_required"
    client.put_object(Bucket=bucket, Key=key, Body=data)
    assert "ChecksumCRC32" not in client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    return f"s3://{bucket}/{key}"
