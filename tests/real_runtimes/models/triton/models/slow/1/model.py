"""A model that loads for some seconds, and answers after as many as its input says."""

import time

import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args):
        time.sleep(4)

    def execute(self, requests):
        answers = []
        for request in requests:
            seconds = backend.get_input_tensor_by_name(request, "SECONDS").as_numpy()
            time.sleep(float(seconds.max()))
            answers.append(backend.InferenceResponse([backend.Tensor("DONE", seconds.copy())]))
        return answers
