"""Processes of the example services, in an empty folder, and requests to them."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from tests.fakes.raw_server import free_port
from tests.fakes.stepped_emulator import SteppedEmulator

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
#: The arguments of Python for each service, as its documentation has them.
COMMANDS: Final = {
    "aiohttp_service.py": [str(EXAMPLES / "aiohttp_service.py")],
    "fastapi_service.py": [
        *("-m", "uvicorn", "fastapi_service:app", "--app-dir", str(EXAMPLES), "--timeout-graceful-shutdown", "3"),
    ],
    "metrics_service.py": [str(EXAMPLES / "metrics_service.py")],
}
#: Seconds from SIGTERM until Docker kills a container.
DOCKER_GRACE_S: Final = 10


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of an example: this one without the settings of a client, and `variables`."""
    settings = ("_API_KEY", "_BASE_URL", "PUBLIC_URL")
    own = {name: value for name, value in os.environ.items() if not name.endswith(settings)}
    return own | {"PYTHONPATH": str(EXAMPLES.parent), "PYTHONUNBUFFERED": "1"} | variables


class Service:
    """Process of an example service in the current folder. It may be stopped and started again."""

    def __init__(self, name: str, emulator: SteppedEmulator) -> None:
        self.port = free_port()
        self._command = [sys.executable, *COMMANDS[name]]
        if name.startswith("fastapi"):
            self._command += ["--port", str(self.port)]
        self._env = environment(
            COMETAPI_API_KEY=emulator.api_key, COMETAPI_BASE_URL=emulator.base_url("cometapi"),
            PUBLIC_URL=f"http://127.0.0.1:{self.port}", PORT=str(self.port), DRAIN="0.1",
        )  # fmt: skip
        self.process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self._read = threading.Thread()

    def start(self) -> None:
        """Start the process and wait until it serves."""
        self.process = process = subprocess.Popen(
            self._command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        serving: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._lines = []

        def read() -> None:
            assert process.stdout is not None
            with process.stdout as lines:
                for line in lines:
                    self._lines.append(line)
                    if "unning on http" in line:
                        serving.put(True)
            serving.put(False)

        self._read = threading.Thread(target=read)
        self._read.start()
        assert serving.get(timeout=30), self.output

    @property
    def output(self) -> str:
        """The output of the process so far."""
        return "".join(self._lines)

    def stop(self) -> str:
        """Send SIGTERM, wait for the end, which Docker would wait for too, and return the output."""
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=DOCKER_GRACE_S)
        finally:
            process.kill()
            process.wait()
            self._read.join()
        assert process.returncode in {0, -signal.SIGTERM}, self.output  # uvicorn re-raises the signal at its end
        return self.output

    def kill(self) -> None:
        """Kill the process, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._read.join()

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run another process of the service, which ends by itself."""
        return subprocess.run(self._command, env=self._env, capture_output=True, text=True, timeout=30, check=False)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        status, text = self.fetch(method, path, json.dumps(body))
        return status, json.loads(text)

    def fetch(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        """Return the status and the text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def wait_for(self, key: str) -> Any:
        """Poll until a job is settled, and return it."""
        deadline = time.monotonic() + 20
        while (job := self.request("GET", f"/videos/{key}?wait=20")[1])["status"] in {"planned", "queued", "running"}:
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job
