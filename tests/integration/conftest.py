"""Servers that the integration tests share: one of each for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from tests.integration.s3_server import S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A SeaweedFS that takes writes; the AWS_* variables point to it while it lives."""
    with S3Server(tmp_path_factory.mktemp("seaweedfs")) as server, mock.patch.dict(os.environ, server.environment()):
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """The name of a bucket of the test's own."""
    return s3_server.new_bucket()
