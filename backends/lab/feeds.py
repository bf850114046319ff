"""What Mastodon and Sidekiq keep in Redis: home feeds, queues, scheduled jobs, retries, counters."""

from __future__ import annotations

import json
import random
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from backends.lab.population import EPOCH, Population, snowflake

if TYPE_CHECKING:
    from redis import Redis

_WORKERS = {
    "default": ("LinkCrawlWorker", "FeedInsertWorker", "MoveWorker"),
    "push": ("ActivityPub::DeliveryWorker",),
    "ingress": ("ActivityPub::ProcessingWorker",),
    "mailers": ("ActionMailer::MailDeliveryJob",),
    "pull": ("ThreadResolveWorker", "RedownloadMediaWorker"),
    "scheduler": ("Scheduler::TrendsScheduler",),
}


def fill(client: Redis, population: Population, seed: int) -> None:
    """Write it all in a few round trips."""
    dice = random.Random(seed)  # noqa: S311
    now = EPOCH.timestamp()
    pipe = client.pipeline(transaction=False)
    depth = 2 * len(population.local)
    for person in population.local:
        ids = [snowflake(EPOCH - timedelta(minutes=7 * n), dice.getrandbits(16)) for n in range(min(200, 4 * depth))]
        pipe.zadd(f"feed:home:{person.id}", {str(number): number for number in ids})
        pipe.set(f"account:{person.id}:regeneration", "true", ex=86400)
    for queue, workers in _WORKERS.items():
        pipe.sadd("queues", queue)
        for number in range(dice.randrange(depth) if queue != "scheduler" else 1):
            pipe.lpush(f"queue:{queue}", _job(dice, queue, workers[number % len(workers)], now - number))
    for name, queue in (("schedule", "push"), ("retry", "push"), ("dead", "pull")):
        for number in range(max(1, depth // 4)):
            pipe.zadd(name, {_job(dice, queue, _WORKERS[queue][0], now): now + 60 * number})
    for day in range(60):
        stamp = int((EPOCH - timedelta(days=day)).replace(hour=0, minute=0).timestamp())
        pipe.set(f"activity:statuses:local:{stamp}", dice.randrange(500))
        pipe.pfadd(f"activity:logins:{stamp}", *(person.id for person in population.local))
    pipe.mset({"stat:processed": 184_220 + seed, "stat:failed": 311})
    pipe.set("cache:instance_presenter", secrets.token_hex(200), ex=600)
    pipe.execute()


def _job(dice: random.Random, queue: str, worker: str, at: float) -> str:
    return json.dumps(
        {
            "retry": 16,
            "queue": queue,
            "class": worker,
            "args": [dice.getrandbits(60), f"https://remote.example/inbox/{dice.getrandbits(32):x}"],
            "jid": f"{dice.getrandbits(96):024x}",
            "created_at": at,
            "enqueued_at": at,
        }
    )
