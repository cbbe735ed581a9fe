"""A web server on this machine that may break off, refuse, or change its mind."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What the server has, how it misbehaves, and what it was asked for."""

    def __init__(self, content):
        self.content = content
        self.tag = '"1"'
        self.breaks_after = []
        """Bytes after which each of the first answers ends."""
        self.status = None
        self.redirect = None
        self.resumes = True
        self.ranges = []
        """The Range header of each request."""


@contextmanager
def serving(content):
    site = Site(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site.ranges.append(self.headers.get("Range"))
            if site.redirect:
                self.send_response(302)
                self.send_header("Location", site.redirect)
                self.end_headers()
                return
            if site.status:
                self.send_error(site.status)
                return
            wanted = self.headers.get("Range")
            goes_on = wanted and site.resumes and self.headers.get("If-Range") == site.tag
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if goes_on else 0
            body = site.content[start:]
            self.send_response(206 if goes_on else 200)
            if goes_on:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            self.send_header("ETag", site.tag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: site.breaks_after.pop(0)] if site.breaks_after else body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site, f"http://127.0.0.1:{server.server_port}/archive.zip"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
