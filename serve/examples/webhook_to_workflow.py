"""Starts a workflow for each session that has ended: hands the server's webhooks on to a workflow
engine that starts at a POST with a key, such as n8n at its Webhook node with header authentication.
Such a trigger knows nothing of signatures; this checks them for it.

    WEBHOOK_SECRET=whsec_... WORKFLOW_KEY=... python serve/examples/webhook_to_workflow.py \
        https://n8n.example/webhook/after-the-call 9001

needs httpx2, standardwebhooks, starlette and uvicorn. n8n has the intent as `$json.body.intent`.
"""

import os
import sys

import httpx2
import uvicorn
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PASSED_ON = "io.duologue.session.ended"
STARTED_BEFORE = 409  # as Temporal says of a workflow's id that it knows
TIMEOUT_S = 10.0  # less than the server waits


def app_of(secret: str, workflow_url: str, workflow_key: str) -> Starlette:
    """Takes webhooks at `/`. It keeps nothing: an event counts as taken once the engine has it, and
    else comes again. The engine tells by the key what it has had."""
    signed = Webhook(secret)
    client = httpx2.AsyncClient(headers={"Authorization": workflow_key}, timeout=TIMEOUT_S)

    async def take(request: Request) -> Response:
        try:
            event = signed.verify(await request.body(), dict(request.headers))
        except (WebhookVerificationError, ValueError):
            return Response(status_code=401)
        if event["type"] != PASSED_ON:
            return Response(status_code=204)
        try:
            answer = await client.post(
                workflow_url,
                json={"event_id": event["id"], "time": event["time"], **event["data"]},
                headers={"Idempotency-Key": event["id"]},
            )
        except httpx2.HTTPError:
            return Response(status_code=502)
        is_taken = answer.is_success or answer.status_code == STARTED_BEFORE
        return Response(status_code=204 if is_taken else 502)

    return Starlette(routes=[Route("/", take, methods=["POST"])])


if __name__ == "__main__":
    app = app_of(os.environ["WEBHOOK_SECRET"], sys.argv[1], os.environ["WORKFLOW_KEY"])
    uvicorn.run(app, port=int(sys.argv[2]))
