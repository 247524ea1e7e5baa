"""A model that loads for some seconds, and answers after as many as it is asked for."""

import argparse
import asyncio
import time

from kserve import Model, ModelServer, model_server


class Slow(Model):
    def load(self) -> bool:
        time.sleep(4)
        self.ready = True
        return True

    async def predict(self, payload, headers=None, response_headers=None):
        await asyncio.sleep(payload["instances"][0])
        return {"predictions": []}


if __name__ == "__main__":
    argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    model = Slow("slow")
    model.load()
    ModelServer().start([model])
