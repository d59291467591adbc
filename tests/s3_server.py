"""An S3 server of this machine (moto) behind a faulty proxy, and the environment that leads to it.

Where moto is not like S3: it looks and then writes, so that two writers at once would both create
one object; here it serves one request at a time. A part of an upload that was aborted is a crash.
All uploads in parts were begun in 2010.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from faulty_proxy import Faults, Proxy, proxy
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

BUCKET = "corpus"
_NO_SUCH_UPLOAD = "<Error><Code>NoSuchUpload</Code></Error>"
KEY, SECRET = "test-key", "test-secret-that-nobody-may-read"


class _Silent(MotoRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class S3Server:
    """client: of boto3, past the proxy: what really lies there."""

    proxy: Proxy
    client: Any

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}"

    @property
    def faults(self) -> Faults:
        return self.proxy.faults

    def suffer(self, faults: Faults) -> Faults:
        """From now on these, and no others."""
        self.proxy.faults = faults
        return faults

    def spare(self) -> None:
        """Nothing goes wrong any more."""
        self.suffer(Faults())

    def environment(self, **settings: Any) -> dict[str, str]:
        """What a process needs to come here; settings: of pipeline.s3.Store."""
        return {
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "FSSPEC_S3": json.dumps(settings),
        }

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """Every object below a folder, by its name relative to it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=folder)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key.removeprefix(folder): self._get(key) for key in keys}

    def unfinished(self) -> int:
        """Uploads in parts that were begun and lie there still."""
        return len(self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))

    def _get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """One with an empty bucket that runs while the block does."""
    app = create_backend_app("s3")
    app.register_error_handler(KeyError, lambda _: (_NO_SUCH_UPLOAD, 404))
    server = make_server("127.0.0.1", 0, app, threaded=False, request_handler=_Silent)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    host, port = "127.0.0.1", server.server_port
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys
    )
    client.create_bucket(Bucket=BUCKET)
    try:
        with proxy((host, port)) as front:
            yield S3Server(front, client)
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    """Serves until its standard input ends; says first how to come here, and last what happened.

    behind: the address past the proxy.

    Started as `python tests/s3_server.py FAULTS`: a JSON object with the fields of `Faults`.
    """
    faults = Faults(**json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    with s3_server() as server:
        server.suffer(faults)
        behind = server.client.meta.endpoint_url
        print(json.dumps({"behind": behind, "environment": server.environment()}), flush=True)
        sys.stdin.read()
        told = {"requests": faults.seen, "faults": faults.happened}
        print(json.dumps({**told, "unfinished": server.unfinished()}), flush=True)


if __name__ == "__main__":
    main()
