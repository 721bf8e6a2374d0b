"""ClickHouse's HTTP interface over the real engine, as far as a sink needs it.

The engine is chdb: ClickHouse as a library. Its own HTTP server is not part of it, so that this one reads requests as
ClickHouse's does: the query in the URL, the body, or both one after the other; settings as further parameters of the URL; the
user and key in headers; an error as text, with its code in a header of its own. Queries run one after the other.

What it does not model: several servers, Keeper, compressed answers, progress headers, roles and quotas.

    clickhouse-front.py PORT FOLDER USER PASSWORD
"""

import base64
import gzip
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import chdb.session

PORT, FOLDER, USER, PASSWORD = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
ALONE = threading.Lock()
ENGINE = chdb.session.Session(FOLDER)

# What ClickHouse's server answers these codes with; others are 500.
STATUSES = {
    **dict.fromkeys([192, 193, 194, 516, 497, 291], 403),
    **dict.fromkeys([16, 47, 60, 81, 36, 46], 404),
    **dict.fromkeys([6, 26, 27, 38, 41, 42, 43, 44, 53, 57, 62, 72, 115, 117], 400),
    159: 408,
}
# Parameters of the interface itself; everything else is a setting.
OWN = {"query", "database", "user", "password", "wait_end_of_query", "buffer_size", "query_id", "default_format"}


def run(query, settings):
    """Runs a query under these settings, and none of those of the query before it."""
    with ALONE:
        try:
            for name, value in settings:
                if not re.fullmatch(r"[a-z0-9_]+", name):
                    raise ValueError(f"Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)")
                value = value.replace("\\", "\\\\").replace("'", "\\'")
                ENGINE.query(f"SET {name} = '{value}'")
            return ENGINE.query(query, "TabSeparated").bytes()
        finally:
            for name, _ in settings:
                try:
                    ENGINE.query(f"SET {name} = DEFAULT")
                except Exception:
                    pass  # It was refused above.


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body, code=None):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(body)

    def is_let_in(self):
        user, key = self.headers.get("X-ClickHouse-User"), self.headers.get("X-ClickHouse-Key")
        basic = self.headers.get("Authorization", "")
        if user is None and basic.startswith("Basic "):
            user, _, key = base64.b64decode(basic[6:]).decode().partition(":")
        self.user = user or "default"
        return user == USER and key == PASSWORD

    def do_GET(self):
        if urlsplit(self.path).path == "/ping":
            return self.answer(200, b"Ok.\n")
        self.do_POST()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.is_let_in():
            text = (
                f"Code: 516. DB::Exception: {self.user}: Authentication failed: password is incorrect, or there is no "
                "user with such name. (AUTHENTICATION_FAILED)\n"
            )
            return self.answer(403, text.encode(), 516)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        params = parse_qsl(urlsplit(self.path).query, keep_blank_values=True)
        query = "".join(value for name, value in params if name == "query")
        query = "\n".join(part for part in [query, body.decode()] if part)
        settings = [(name, value) for name, value in params if name not in OWN]
        try:
            found = run(query, settings)
        except Exception as error:
            text = str(error)
            code = re.match(r"Code: (\d+)", text)
            code = int(code.group(1)) if code else 1002
            return self.answer(STATUSES.get(code, 500), (text + "\n").encode(), code)
        self.answer(200, found)


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
