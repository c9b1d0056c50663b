"""Rates that several replicas share, kept in Redis. The only module that speaks to it.

One script takes all charges of a request or none, by Redis's own clock, so that replicas whose
clocks differ agree. The algorithm is that of :mod:`api.limits`.
"""

import logging
from collections.abc import Sequence
from typing import Any, cast

from api.errors import unavailable
from api.limits import MINUTE, TOLERANCE, Charge, Standing, standing

_log = logging.getLogger(__name__)
_PREFIX = "intramural:rate:"
# KEYS: the buckets. ARGV: tolerance, minute, then per bucket interval, cost and owed (0 or 1).
# Replies as text: Redis would cut a number to a whole one.
_SCRIPT = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local tolerance, minute = tonumber(ARGV[1]), tonumber(ARGV[2])
local waits, arrivals, before, refused = {}, {}, {}, false
for index, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[3 * index])
  local cost = tonumber(ARGV[3 * index + 1])
  local owed = ARGV[3 * index + 2] == '1'
  local arrival = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local early = arrival - now - (minute - math.max(1, cost) * interval)
  before[index] = arrival
  waits[index] = 0
  if early > tolerance and not owed then
    waits[index] = early
    refused = true
  end
  arrivals[index] = arrival + cost * interval
end
local reply = {}
for index, key in ipairs(KEYS) do
  local arrival = refused and before[index] or arrivals[index]
  if arrival > now and not refused then
    redis.call('SET', key, string.format('%.6f', arrival),
               'PX', math.ceil((arrival - now) * 1000) + 1000)
  end
  reply[#reply + 1] = string.format('%.9f', waits[index])
  reply[#reply + 1] = string.format('%.6f', arrival - now)
end
return reply
"""


class RedisRates:
    """Buckets in Redis.

    Args:
        client: an asyncio client of the package ``redis`` with time-outs.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._script = client.register_script(_SCRIPT)

    @classmethod
    def connect(cls, url: str, seconds: float) -> "RedisRates":
        """Buckets at the URL; each answer must come within ``seconds``. Connects when first used.

        Raises:
            ValueError: it is no URL of a Redis server. Its text is not repeated: it may hold a
                password.
        """
        from redis import asyncio as redis

        try:
            client = redis.Redis.from_url(
                url, socket_timeout=seconds, socket_connect_timeout=seconds
            )
        except (ValueError, TypeError):
            raise ValueError("must be like redis://host:6379/0 or rediss://host:6379/0") from None
        return cls(client)

    async def take(self, charges: Sequence[Charge]) -> list[Standing]:
        """See the port."""
        if not charges:
            return []
        arguments: list[Any] = [repr(TOLERANCE), repr(MINUTE)]
        for charge in charges:
            arguments += [repr(MINUTE / charge.per_minute), charge.cost, int(charge.owed)]
        try:
            reply = cast(
                "list[bytes]",
                await self._script(
                    keys=[_PREFIX + each.bucket for each in charges], args=arguments
                ),
            )
        except Exception as error:
            _log.error("the rate limits cannot be reached: %s", type(error).__name__)
            raise unavailable(
                "the rate limits cannot be checked at present, so nothing is answered",
                code="limits_unavailable",
                retry_after=1,
            ) from None
        figures = [float(part) for part in reply]
        return [
            standing(charge, wait, debt, 0.0)
            for charge, wait, debt in zip(charges, figures[::2], figures[1::2], strict=True)
        ]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
