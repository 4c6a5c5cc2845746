"""Three DuckDB queries that work on one output, its path filled in. Knows the tables' columns; runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from tinyface_core.tables.footer import sql_glob


@dataclass(frozen=True)
class Query:
    """A question in words, and its SQL."""

    question: str
    sql: str


def queries_for(output_uri: str, endpoint_url: str | None = None) -> list[Query]:
    """The queries, and first what DuckDB must know to read s3:// where the output lies there.

    Args:
        output_uri: canonical (`file:///...`, `s3://...`); quotes and glob characters in it are escaped.
        endpoint_url: of an S3 server that is not AWS; a user name or password in it is left out.
    """
    images, faces = (sql_glob(output_uri, name) for name in ("images", "detections"))
    setup = [Query("Once a session: let DuckDB read S3", _s3_setup(endpoint_url))] if _is_s3(output_uri) else []
    return [
        *setup,
        Query(
            "How many pictures, and what became of them?",
            f"SELECT status, error_class, count(*) AS pictures, sum(num_faces) AS faces\n"
            f"FROM {images}\n"
            f"GROUP BY ALL ORDER BY pictures DESC;",
        ),
        Query(
            "Which pictures hold the most faces?",
            f"SELECT num_faces, width, height, uri, member\n"
            f"FROM {images}\n"
            f"ORDER BY num_faces DESC, uri, member LIMIT 20;",
        ),
        Query(
            "Where are the small faces that the model is sure of?",
            f"SELECT uri, member, count(*) AS small_faces, round(min(y2 - y1), 1) AS smallest_px\n"
            f"FROM {images}\n"
            f"JOIN {faces} USING (image_id, commit)\n"
            f"WHERE y2 - y1 < 20 AND score > 0.8\n"
            f"GROUP BY ALL ORDER BY small_faces DESC, uri, member LIMIT 20;",
        ),
    ]


def _is_s3(output_uri: str) -> bool:
    return output_uri.startswith(("s3://", "s3a://"))


def _s3_setup(endpoint_url: str | None) -> str:
    secret = "TYPE s3, PROVIDER credential_chain"  # noqa: S105 - names where it comes from
    if endpoint_url:
        parts = urlsplit(endpoint_url)
        host = parts.netloc.rpartition("@")[2].replace("'", "''")
        secret += f", ENDPOINT '{host}', URL_STYLE 'path', USE_SSL {str(parts.scheme == 'https').lower()}"
    return f"INSTALL httpfs; LOAD httpfs;\nINSTALL aws; LOAD aws;\nCREATE SECRET ({secret});"
