"""Servers that the integration tests share: one of each a test process."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.integration.fault_proxy import FaultProxy
from tests.integration.job_pictures import save_model
from tests.integration.job_runs import ROOT
from tests.integration.ray_head import FAULTS, RayHead
from tests.integration.s3_server import S3Server
from tinyface_core.storage import Storage


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A SeaweedFS that takes writes; the AWS_* variables point to it while it lives."""
    with S3Server(tmp_path_factory.mktemp("seaweedfs")) as server, mock.patch.dict(os.environ, server.environment()):
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure tells of the server too: that it was gone looks like a fault of ours."""
    report = yield
    server = getattr(item, "funcargs", {}).get("s3_server")
    if report.failed and isinstance(server, S3Server):
        report.sections.append(("S3 server", server.state()))
    return report


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """The name of a bucket of the test's own."""
    return s3_server.new_bucket()


@pytest.fixture
def storage(s3_server: S3Server) -> Storage:
    """A client of that server."""
    return Storage()


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A network before that server, which can fail."""
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each detector notes the pictures that it takes: a file for each process, a line `width height` for each."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="session")
def ray_head(s3_server: S3Server, notes: Path) -> Iterator[RayHead]:
    """A Ray of two CPUs for jobs to join; its workers read the S3 server, and fail when a picture says so."""
    path = os.pathsep.join(map(str, (FAULTS, ROOT)))  # this checkout's core, whatever is installed
    faults = {"PYTHONPATH": path, "TINYFACE_TEST_NOTES": str(notes)}
    with RayHead(cpus=2, variables=s3_server.environment() | faults) as head:
        yield head


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that fires."""
    return save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")
