"""An ASGI application for uvicorn."""

import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = f"uvicorn {os.environ['FORKD_WORKER']}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
