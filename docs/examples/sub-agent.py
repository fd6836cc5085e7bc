#!/usr/bin/env python3
"""A sub-agent of Haar's agent: it notes each guest in a file of its own, and forgets it.

Usage: sub-agent.py PORT FOLDER      (port 0: the system chooses; it is printed either way)
"""
import json
import pathlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = pathlib.Path(sys.argv[2])


def note(guest, args):
    """Asked twice it does the same again: "make it so"."""
    (FOLDER / guest["id"]).write_text(args.get("text", "noted"))
    guest.setdefault("metadata", {})["noted"] = "yes"
    return guest


def forget(guest, args):
    (FOLDER / guest["id"]).unlink(missing_ok=True)
    return guest


METHODS = {"Notes.Note": note, "Notes.Forget": forget}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            call = json.loads(body)
            method = METHODS[call["method"]]
            request = call["params"][0]
        except (ValueError, LookupError, TypeError):
            return self.answer(400, b"no such method, or no call at all", "text/plain")
        reply = {"result": None, "error": None, "id": call.get("id")}
        try:
            reply["result"] = {"guest": method(request["guest"], request.get("args") or {})}
        except Exception as error:  # Whatever went wrong is told; the agent ends the job with it.
            reply["error"] = str(error) or repr(error)
        self.answer(200, json.dumps(reply).encode(), "application/json; charset=utf-8")

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
