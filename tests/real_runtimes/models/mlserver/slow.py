"""A model that loads for some seconds, and answers after as many as its input says."""

import asyncio
import time

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse


class Slow(MLModel):
    async def load(self) -> bool:
        time.sleep(4)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        await asyncio.sleep(payload.inputs[0].data[0])
        return InferenceResponse(model_name=self.name, outputs=[])
