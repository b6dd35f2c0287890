"""Starts ministack as the local cloud needs it: what it lacks or does slowly is bridged here, not in product code.

Takes one argument, a JSON object:
    tmp           directory for temporary files
    endpoints     {region: URL}: what a function of that region calls, for AWS and as its HTTPS proxy
    ca            PEM bundle that functions trust
    wait_scale    factor on Step Functions' waits and retry intervals
    authorizations  where the answers are written to whether a role may do something; null: roles may do everything
Writes two lines to standard output: {"port": N} at once, {"ready": true} when ministack serves on it.
It ends, with every function process, when standard input ends: that is how it learns that the daemon has died.
"""

import asyncio
import functools
import json
import os
import signal
import socket
import socketserver
import sys
import tempfile
import threading

CONFIG = json.loads(sys.argv[1])

# Standard output is for the daemon; whatever else is printed is a log.
ANNOUNCE = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def announce(message):
    ANNOUNCE.write(json.dumps(message) + "\n")
    ANNOUNCE.flush()


LISTENER = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
LISTENER.bind(("127.0.0.1", 0))
PORT = LISTENER.getsockname()[1]
announce({"port": PORT})

tempfile.tempdir = CONFIG["tmp"]
os.environ.update(
    GATEWAY_PORT=str(PORT),
    BIND_HOST="127.0.0.1",
    TMPDIR=CONFIG["tmp"],
    # Listeners on fixed ports that nobody uses and that two local clouds would fight for.
    IOT_MTLS_ENABLED="0",
    SFTP_ENABLED="0",
    # The default shrinks with the machine's memory; reserved concurrency still limits each function.
    LAMBDA_ACCOUNT_CONCURRENCY="1000",
    LOG_LEVEL="WARNING",
    AUTH="true" if CONFIG["authorizations"] else "false",
)

import gaps  # noqa: E402
import signals  # noqa: E402
from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402
from ministack import app  # noqa: E402
from ministack.core import lambda_runtime  # noqa: E402
from ministack.services import lambda_svc, scheduler, stepfunctions  # noqa: E402


def faster_invocations():
    """A warm call costs 5 ms instead of 50 to 100: the Runtime API's server sends head and body in one packet, and nobody
    waits 50 ms for log lines that do not come."""
    handler = socketserver.StreamRequestHandler
    handler.disable_nagle_algorithm = True
    handler.wbufsize = -1
    socketserver.TCPServer.request_queue_size = 128
    lambda_runtime.ProvidedWorker._drain_stderr_bounded = functools.partialmethod(drain_logs)


def drain_logs(worker, first_line_wait=0.0, **_ignored):
    """What the function has logged so far. A line still in the pipe is reported with the next call, as on AWS."""
    lines = []
    timeout = first_line_wait if first_line_wait > 0.05 else 0.0
    while True:
        try:
            lines.append(worker._stderr_queue.get(timeout=timeout) if timeout else worker._stderr_queue.get_nowait())
            timeout = 0.0
        except lambda_runtime.queue.Empty:
            return "\n".join(lines)


def function_environments():
    """Gives functions the environment that AWS gives them, plus the way to the edge, and nothing of this process."""
    original = lambda_svc._provided_worker_env

    def environment(config, code_dir, port):
        region = config["FunctionArn"].split(":")[3]
        configured = (config.get("Environment") or {}).get("Variables") or {}
        name = config.get("FunctionName", "unknown")
        ours = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "AWS_EXECUTION_ENV": "AWS_Lambda_" + config.get("Runtime", "provided.al2023"),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        }
        ours.update(
            (key, value)
            for key, value in original(config, code_dir, port).items()
            if key in configured or key not in os.environ
        )
        endpoint = CONFIG["endpoints"][region]
        ours.update(
            AWS_REGION=region,
            AWS_DEFAULT_REGION=region,
            AWS_ENDPOINT_URL=endpoint,
            HTTPS_PROXY=endpoint,
            https_proxy=endpoint,
            NO_PROXY="127.0.0.1,localhost",
            no_proxy="127.0.0.1,localhost",
            SSL_CERT_FILE=CONFIG["ca"],
            # The edge learns from the SDKs' user agent which function calls. AWS knows it from the credentials.
            AWS_SDK_UA_APP_ID=name,
        )
        return ours

    # The warm worker imports the name when it starts a process, so it finds this one too.
    lambda_svc._provided_worker_env = environment


def faster_control_planes():
    """Pauses that stand for nothing: before an execution starts, after a function changes, between schedule sweeps."""

    class Time:
        def __getattr__(self, name):
            return getattr(self_time, name)

        @staticmethod
        def sleep(seconds):
            self_time.sleep(0.005 if seconds == 0.15 else seconds)

    self_time = stepfunctions.time
    stepfunctions.time = Time()
    # A wait in a workflow is for AWS to finish something; here it is finished at once.
    stepfunctions._SFN_WAIT_SCALE = CONFIG["wait_scale"]
    lambda_svc._LAMBDA_STATE_TRANSITION_DELAY = 0.05
    scheduler._SCHEDULE_TICK_INTERVAL = 1


def end_with_parent():
    """Waits for the end of standard input, then ends the functions and this process."""

    def watch():
        while os.read(0, 4096):
            pass
        end()

    threading.Thread(target=watch, daemon=True, name="parent").start()


def end(*_signal):
    """Ends every function process and this one, at once: nothing here outlives the cloud."""
    # The process group is this process and all it has started; the daemon made it a group of its own.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


async def main():
    config = Config()
    config.bind = [f"fd://{LISTENER.fileno()}"]
    config.backlog = 1024
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1_000_000_000
    config.loglevel = "WARNING"
    ready = asyncio.create_task(announce_ready())
    await serve(app.app, config, shutdown_trigger=asyncio.Event().wait)
    await ready


async def announce_ready():
    """Says so once ministack answers."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            writer.write(b"GET /_ministack/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
            writer.close()
            if b" 200" in status:
                break
        except OSError:
            pass
        await asyncio.sleep(0.01)
    announce({"ready": True})


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, signal.SIG_IGN)
end_with_parent()
faster_invocations()
function_environments()
faster_control_planes()
gaps.recovery_periods()
gaps.vpc_endpoints()
gaps.minor_upgrades()
gaps.simulated_roles()
gaps.log_exports()
gaps.snapshots_of_failovers()
gaps.tag_listing()
gaps.deleted_functions()
gaps.invocations_under_way()
gaps.stopped_executions()
gaps.secret_replicas()
gaps.api_documents()
signals.all_of_them()
if CONFIG["authorizations"]:
    import policies

    policies.enforce(CONFIG["authorizations"])
asyncio.run(main())
