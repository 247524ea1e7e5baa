"""A service that loads for some seconds, and answers after as many as it is asked for."""

import asyncio
import time

import bentoml


@bentoml.service
class Slow:
    def __init__(self) -> None:
        time.sleep(4)

    @bentoml.api
    async def wait(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"
