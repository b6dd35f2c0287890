#!/usr/bin/env python3
"""Times `understudy up` of the whole stack against `cdk deploy` of one region's VPC, table, bucket, function and REST API, on the
same local cloud, in turn. Whole processes, wall clock. The CDK's packages are there before, and so are the functions' binaries:
they lie beside a copy of the program, as where it is installed, so that no cargo looks whether they are up to date.

Needs Node.js with npm, and `cargo build --bins`. Run it on a quiet machine: python3 tests/cdk/compare.py
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT_S = 300
FUNCTIONS = ("payment-processor", "health-probe", "failover-coordinator")


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, **options)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def timed(command, **options):
    began = time.monotonic()
    run(command, **options)
    return time.monotonic() - began


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3, help="how often each is timed (default 3)")
    default = HERE.parents[1] / "target/debug"
    arguments.add_argument("--binaries", type=Path, default=default, help="where the program is (default target/debug)")
    options = arguments.parse_args()

    with tempfile.TemporaryDirectory(prefix="understudy-cdk-") as temporary:
        work, cloud, installed = (Path(temporary) / name for name in ("cdk", "cloud", "installed"))
        work.mkdir()
        installed.mkdir()
        for name in ("understudy", *FUNCTIONS):
            shutil.copy(options.binaries / name, installed)
        understudy = installed / "understudy"
        for name in ("app.js", "package.json"):
            shutil.copy(HERE / name, work)
        print("installing the CDK", file=sys.stderr)
        run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=work)
        local = ["--local", "--dir", cloud]
        print("starting a local cloud", file=sys.stderr)
        run([understudy, "local", "start", "--dir", cloud])
        try:
            told = json.loads(run([understudy, "local", "env", "--dir", cloud, "--output", "json"]))
            environment = os.environ | told | {"CDK_DISABLE_CLI_TELEMETRY": "1", "CI": "true"}
            cdk = {"cwd": work, "env": environment}
            binary = work / "node_modules/.bin/cdk"
            app = ["--app", "node app.js", "--no-notices"]
            times = {"up": [], "cdk": []}
            for number in range(options.rounds):
                times["up"].append(timed([understudy, "up", *local]))
                run([understudy, "down", "--yes", *local])
                deploy = [binary, "deploy", *app, "--require-approval", "never", "--method", "direct"]
                times["cdk"].append(timed(deploy, **cdk))
                resources = json.loads((work / "cdk.out/compared.template.json").read_text())["Resources"]
                run([binary, "destroy", *app, "--force"], **cdk)
                up, other = times["up"][-1], times["cdk"][-1]
                print(f"round {number + 1}: up {up:.1f} s, cdk deploy {other:.1f} s, ratio {up / other:.2f}", file=sys.stderr)
        finally:
            run([understudy, "local", "stop", "--dir", cloud])
    up, other = statistics.median(times["up"]), statistics.median(times["cdk"])
    print(f"understudy up, the whole stack       median {up:6.1f} s of {options.rounds}")
    print(f"cdk deploy, {len(resources)} resources             median {other:6.1f} s of {options.rounds}")
    print(f"ratio                                {up / other:.2f}")


if __name__ == "__main__":
    main()
