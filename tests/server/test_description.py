"""The API description, fuzzed: whatever comes, each answer is one that it describes, and no 500."""

from __future__ import annotations

from pathlib import Path

from packages import needs_wheels, run_with
from server.conftest import Serve

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def test_fuzzing(serve: Serve, bundle: Path, tmp_path: Path) -> None:
    wheels = needs_wheels("schemathesis")
    server = serve(bundle)
    found = run_with(
        [wheels],
        "-m",
        "schemathesis.cli",
        "run",
        f"http://127.0.0.1:{server.port}/openapi.json",
        f"--checks={','.join(CHECKS)}",
        "--max-examples=60",
        "--seed=1",
        "--no-color",
        "--generation-database=none",
        cwd=tmp_path,  # it keeps notes there
    )
    assert found.returncode == 0, found.stdout[-4000:]
    assert "11 selected / 11 total" in found.stdout
    lines = [line for line in server.stop()[1] if "status" in line]
    statuses = {line["status"] for line in lines}
    assert {200, 400, 404, 405, 422} <= statuses
    answered = {line["path"] for line in lines if line["status"] == 200}
    assert {"/predict", "/classify", f"/v2/models/{server.name}/infer"} <= answered
