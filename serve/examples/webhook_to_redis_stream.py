"""Puts the server's webhooks into a Redis stream, each event once, however often it was sent.

    WEBHOOK_SECRET=whsec_... python serve/examples/webhook_to_redis_stream.py redis://127.0.0.1 9000

needs redis, standardwebhooks, starlette and uvicorn. Workers read the stream in groups:

    XGROUP CREATE {duologue}:events workers 0 MKSTREAM
    XREADGROUP GROUP workers w1 COUNT 10 BLOCK 0 STREAMS {duologue}:events >
"""

import os
import sys

import uvicorn
from redis.asyncio import Redis
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STREAM = "{duologue}:events"  # what is in braces keeps a cluster's keys together
SEEN = "{duologue}:seen:"
SEEN_S = 8 * 86_400  # the server sends again for 7 days
MOST = 1_000_000  # events in the stream, about

# Both or neither: an id that is remembered without its event would be an event that is lost.
ADD_ONCE = """
    if redis.call('SET', KEYS[2], '', 'NX', 'EX', ARGV[1]) then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'id', ARGV[3], 'event', ARGV[4])
    end
"""


def app_of(secret: str, redis_url: str) -> Starlette:
    """Takes webhooks at `/`. While Redis is away it answers 500: they come again."""
    signed, redis = Webhook(secret), Redis.from_url(redis_url)

    async def take(request: Request) -> Response:
        body = await request.body()
        try:
            signed.verify(body, dict(request.headers))
        except (WebhookVerificationError, ValueError):
            return Response(status_code=401)
        name = request.headers["webhook-id"]
        await redis.eval(ADD_ONCE, 2, STREAM, SEEN + name, SEEN_S, MOST, name, body)
        return Response(status_code=204)

    return Starlette(routes=[Route("/", take, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(app_of(os.environ["WEBHOOK_SECRET"], sys.argv[1]), port=int(sys.argv[2]))
