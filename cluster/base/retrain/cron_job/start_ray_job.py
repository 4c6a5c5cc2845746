"""Makes a RayJob of a suspended template, once for each tick of a CronJob, and waits for its end.

Runs in the CronJob's pod with Python's standard library alone. The name of the Job that Kubernetes made for the tick is
the RayJob's name, so a pod that is started again finds what the one before it made. The RayJob belongs to the Job:
whoever deletes the Job, Kubernetes' own history limit too, deletes both.

Exit codes: 0 the RayJob succeeded, 3 it failed, 1 anything else (another pod tries again).
"""

from __future__ import annotations

import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
API = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
PAUSE_S = float(os.environ.get("PAUSE_S", "30"))
PATIENCE_S = 600.0  # without an answer of the API


def main() -> int:
    template, name = os.environ["TEMPLATE"], os.environ["JOB_NAME"]
    made = run_of(ask("GET", template), name, os.environ["JOB_UID"])
    try:
        ask("POST", "", made)
        print(f"{name}: made of {template}: {made['spec']['entrypoint']}", flush=True)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        print(f"{name}: is there already; waiting for its end", flush=True)
    status = ended(name)
    print(f"{name}: {status.get('jobStatus') or status['jobDeploymentStatus']} {status.get('message', '')}".rstrip())
    return 0 if status["jobDeploymentStatus"] == "Complete" and status.get("jobStatus") == "SUCCEEDED" else 3


def run_of(template: dict[str, Any], name: str, uid: str) -> dict[str, Any]:
    """The RayJob of one tick: the template's spec, no longer suspended, with the tick in its command."""
    spec = dict(template["spec"], suspend=False)
    spec["entrypoint"] = spec["entrypoint"].replace("@TICK@", tick_of(name).strftime("%Y-%m-%dT%H:%MZ"))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
    labels = template["metadata"].get("labels", {})
    metadata = {"name": name, "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": template["apiVersion"], "kind": "RayJob", "metadata": metadata, "spec": spec}


def tick_of(name: str) -> datetime:
    """When the Job was due, as the CronJob controller writes it into its name; now for a Job that a person made."""
    minutes = re.search(r"-(\d{7,9})$", name)
    return datetime.fromtimestamp(int(minutes.group(1)) * 60, UTC) if minutes else datetime.now(UTC)


def ended(name: str) -> dict[str, Any]:
    """The status of the RayJob when it is at its end. Short silence of the API is waited out."""
    answered = time.monotonic()
    while True:
        try:
            status: dict[str, Any] = ask("GET", name).get("status") or {}
            answered = time.monotonic()
            if status.get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed"):
                return status
        except OSError as error:
            gone = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if gone or time.monotonic() - answered > PATIENCE_S:
                raise
        time.sleep(PAUSE_S)


def ask(method: str, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One call of Kubernetes' API on the RayJobs of this namespace."""
    url = f"{API}/apis/ray.io/v1/namespaces/{os.environ['NAMESPACE']}/rayjobs/{name}".rstrip("/")
    data = None if body is None else json.dumps(body).encode()
    token = (ACCOUNT / "token").read_text()  # read anew: it is exchanged while the pod lives
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 (the API's own address)
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")) if url.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=30, context=trust) as answer:  # noqa: S310
        told: dict[str, Any] = json.load(answer)
    return told


if __name__ == "__main__":
    sys.exit(main())
