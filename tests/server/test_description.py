"""The API description, fuzzed: whatever comes, each answer is one that it describes, and no 500."""

from __future__ import annotations

import re
from pathlib import Path

from packages import needs_wheels, run_with
from scored_bundles import pair_bundle
from server.conftest import Serve
from trimexport_runtime.score import LOG_ODDS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "server.md"
UNDESCRIBED = {
    "/docs",
    "/openapi.json",
    "/v1/score",
    "/v2/models/{name}/versions/1",
    "/v2/models/{name}/versions/1/infer",
    "/v2/models/{name}/versions/1/ready",
}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def test_no_route_is_served_and_undescribed(serve: Serve, bundle: Path) -> None:
    server = serve(bundle)
    _, refusal, _ = server.ask("GET", "/nowhere")
    served = set(refusal["error"].removeprefix("no such path; there are: ").split(", "))
    _, description, _ = server.ask("GET", "/openapi.json")
    operations = description["paths"]
    assert served == set(operations) | UNDESCRIBED
    for path in served:
        status, _, headers = server.ask("TRACE", path.replace("{name}", server.name))
        assert status == 405
        methods = {method.lower() for method in headers["allow"].split(", ")} - {"head"}
        described = path.replace("/versions/1", "").replace("/v1/score", "/score")
        assert methods == set(operations.get(described, ("get",)))


def test_the_page_and_the_documentation_name_what_is_described(serve: Serve, bundle: Path) -> None:
    server = serve(bundle)
    _, description, _ = server.ask("GET", "/openapi.json")
    _, page, _ = server.ask("GET", "/docs")
    listed = re.findall("<tr><td>([A-Z]+)</td><td><code>([^<]+)</code></td>", page.decode())
    operations = description["paths"].items()
    assert listed == [(method.upper(), path) for path, item in operations for method in item]
    documented = PAGE.read_text(encoding="utf-8").partition("\n## Routes\n")[2]
    for path in description["paths"]:
        assert re.search(f"`(?:GET |POST )?{path.replace('{name}', 'NAME')}`", documented), path


def test_fuzzing(serve: Serve, bundle: Path, tmp_path: Path) -> None:
    wheels = needs_wheels("schemathesis")
    server = serve(bundle, f"relevance={pair_bundle(tmp_path / 'relevance', LOG_ODDS)}")
    found = run_with(
        [wheels],
        "-m",
        "schemathesis.cli",
        "run",
        f"http://127.0.0.1:{server.port}/openapi.json",
        f"--checks={','.join(CHECKS)}",
        "--max-examples=40",
        "--seed=1",
        "--no-color",
        "--generation-database=none",
        cwd=tmp_path,  # it keeps notes there
    )
    assert found.returncode == 0, found.stdout[-4000:]
    assert "17 selected / 17 total" in found.stdout
    lines = [line for line in server.stop()[1] if "status" in line]
    statuses = {line["status"] for line in lines}
    assert {200, 400, 404, 405, 422} <= statuses
    answered = {line["path"] for line in lines if line["status"] == 200}
    scores = {"/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/moderations"}
    assert {"/predict", "/classify", f"/v2/models/{server.name}/infer"} | scores <= answered
