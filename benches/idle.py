#!/usr/bin/env python3
"""What a thousand idle connections cost: redis-benchmark's 99th percentiles and the server's own memory,
with 50 busy connections alone, and beside 1,000 that say nothing.

    cargo build --release && benches/idle.py [PROGRAM]

Needs redis-benchmark on the path. Everything is in a directory that is removed, on the file system of the
current directory; the server listens on loopback and is ended.
"""

import csv
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

IDLE = 1000
ROUNDS = 3


def own_memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def benchmark(port):
    command = ["redis-benchmark", "-p", str(port), "-c", "50", "-n", "300000", "-t", "set,get", "-d", "100",
               "-r", "1000000", "--csv"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {row["test"]: row for row in csv.DictReader(output.splitlines())}


def report(name, port, pid):
    for _ in range(ROUNDS):
        rows = benchmark(port)
        figures = [f"{test} {float(row['rps']):9.0f}/s, p99 {row['p99_latency_ms']} ms"
                   for test, row in rows.items()]
        print(f"{name:24} {'; '.join(figures)}; {own_memory_kib(pid) // 1024} MiB", flush=True)


def main():
    program = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/crabkv")
    if shutil.which("redis-benchmark") is None:
        sys.exit("idle.py: skipped: there is no redis-benchmark on the path (Debian: redis-tools)")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limit), limit))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch = tempfile.mkdtemp(prefix="idle-bench.", dir=".")
    server = subprocess.Popen([program, "serve", "--addr", f"127.0.0.1:{port}", "--data-dir",
                               os.path.join(scratch, "data"), "--max-connections", "2000", "--quiet"])
    try:
        time.sleep(1)
        benchmark(port)
        report("50 busy", port, server.pid)
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(IDLE)]
        for connection in idle:
            connection.sendall(b"PING\r\n")
            assert connection.recv(100) == b"+PONG\r\n"
        report(f"50 busy, {IDLE} idle", port, server.pid)
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
