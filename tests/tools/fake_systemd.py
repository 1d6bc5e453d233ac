#!/usr/bin/env python3
"""A small stand-in for systemd's user manager, for tests: units from XDG_CONFIG_HOME/systemd/user, sockets
that outlive services, readiness over NOTIFY_SOCKET, restarts, drain before kill. `manager SOCKET` runs it;
called as systemctl or journalctl it hands its words to the manager named by FAKE_SYSTEMD."""
import json
import os
import select
import shlex
import socket
import subprocess
import sys
import threading
import time


def read_unit(path):
    out, section, pending = {}, "", ""
    with open(path) as f:
        for line in f:
            line = pending + line.strip()
            pending = ""
            if not line or line[0] in "#;":
                continue
            if line.endswith("\\"):
                pending = line[:-1] + " "
            elif line[0] == "[":
                section = line[1:-1]
            else:
                key, _, value = line.partition("=")
                out.setdefault((section, key.strip()), []).append(value.strip())
    return out


def last(unit, section, key, default=""):
    return unit.get((section, key), [default])[-1]


class Service:
    def __init__(self, name):
        self.name, self.state, self.proc, self.restarts, self.wanted = name, "inactive", None, 0, False
        self.ready = threading.Event()
        self.lock = threading.RLock()


class Manager:
    def __init__(self, home):
        self.dir = os.path.join(home, "systemd", "user")
        self.run = os.environ["FAKE_SYSTEMD"] + ".d"
        os.makedirs(self.run, exist_ok=True)
        self.units, self.services, self.sockets, self.enabled = {}, {}, {}, set()
        self.calls = open(os.path.join(self.run, "calls"), "a", buffering=1)
        threading.Thread(target=self.activate, daemon=True).start()

    def path(self, name):
        return os.path.join(self.dir, name)

    def log_path(self, name):
        return os.path.join(self.run, name + ".log")

    def unit(self, name):  # as it was at the last daemon-reload, as with the real one
        if name not in self.units:
            self.units[name] = read_unit(self.path(name))
        return self.units[name]

    def service(self, name):
        return self.services.setdefault(name, Service(name))

    # ---- sockets
    def open_socket(self, name):
        if name in self.sockets:
            return
        where = last(self.unit(name), "Socket", "ListenStream")
        host, _, port = where.rpartition(":")
        s = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if last(self.unit(name), "Socket", "ReusePort") == "yes":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind((host.strip("[]"), int(port)))
        s.listen(int(last(self.unit(name), "Socket", "Backlog", "128")))
        self.sockets[name] = s

    def activate(self):  # a connection to a socket whose service is not there starts it
        while True:
            time.sleep(0.05)
            for name, s in list(self.sockets.items()):
                service = self.service(name.replace(".socket", ".service"))
                if service.state in ("inactive", "failed") and select.select([s], [], [], 0)[0]:
                    self.start(service.name)

    # ---- services
    def spawn(self, service):
        unit = self.unit(service.name)
        words = [w.replace("%%", "%").replace("$$", "$")
                 for w in shlex.split(last(unit, "Service", "ExecStart"))]
        notify = os.path.join(self.run, service.name + ".notify")
        if os.path.exists(notify):
            os.unlink(notify)
        inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        inbox.bind(notify)
        env = dict(os.environ, NOTIFY_SOCKET=notify, WATCHDOG_USEC="60000000")
        for entry in unit.get(("Service", "Environment"), []):
            for pair in shlex.split(entry):
                key, _, value = pair.partition("=")
                env[key] = value
        own = service.name.replace(".service", ".socket")
        held = self.sockets.get(last(unit, "Service", "Sockets", own))
        fd = held.fileno() if held else None

        def child():
            os.setsid()
            if fd is not None:
                os.dup2(fd, 3)
                os.set_inheritable(3, True)

        if fd is not None:  # the pid is known only inside
            env["LISTEN_FDS"] = "1"
            words = ["sh", "-c", 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"', "sh"] + words
        service.ready.clear()
        log = open(self.log_path(service.name), "ab")
        service.proc = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        preexec_fn=child, close_fds=fd is None)
        threading.Thread(target=self.read_inbox, args=(service, inbox), daemon=True).start()
        threading.Thread(target=self.reap, args=(service, service.proc), daemon=True).start()

    def read_inbox(self, service, inbox):
        proc = service.proc
        inbox.settimeout(0.5)
        while proc.poll() is None:
            try:
                text = inbox.recv(4096).decode()
            except socket.timeout:
                continue
            with open(os.path.join(self.run, "notified"), "a") as f:
                f.write(text.replace("\n", " ") + "\n")
            if "READY=1" in text:
                service.ready.set()
        inbox.close()

    def reap(self, service, proc):
        code = proc.wait()
        with service.lock:
            if service.proc is not proc:
                return
            service.proc = None
            if not service.wanted:
                service.state = "inactive"
                return
            service.state = "failed" if code != 0 else "inactive"
            if code == 0 or last(self.unit(service.name), "Service", "Restart") != "on-failure":
                return
            service.state = "activating"
        time.sleep(0.3)
        with service.lock:
            if service.wanted and service.proc is None:
                service.restarts += 1
                self.spawn(service)
        threading.Thread(target=self.wait_ready, args=(service,), daemon=True).start()

    def wait_ready(self, service):
        notify = last(self.unit(service.name), "Service", "Type") == "notify"
        end = time.time() + 60
        while time.time() < end:
            proc = service.proc
            if proc is None or proc.poll() is not None:
                return False
            if not notify or service.ready.wait(0.05):
                service.state = "active"
                return True
        return False

    def start(self, name):
        if name.endswith(".socket"):
            self.open_socket(name)
            return 0, ""
        service = self.service(name)
        with service.lock:
            if service.state == "active" and service.proc is not None:
                return 0, ""
            for need in last(self.unit(name), "Unit", "Requires").split():
                self.open_socket(need)
            service.wanted = True
            service.state = "activating"
            if service.proc is None:
                self.spawn(service)
        return (0, "") if self.wait_ready(service) else (1, f"Job for {name} failed.")

    def stop(self, name):
        if name.endswith(".socket"):
            held = self.sockets.pop(name, None)
            if held:
                held.close()
            return 0, ""
        service = self.service(name)
        with service.lock:
            service.wanted = False
            proc = service.proc
        if proc is not None:
            proc.terminate()
            try:
                proc.wait(float(last(self.unit(name), "Service", "TimeoutStopSec", "90")))
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()
        with service.lock:
            if service.proc is proc:  # else a connection has started the next one already
                service.proc, service.state = None, "inactive"
            service.restarts = 0
        return 0, ""

    def show(self, words):
        prop, name = words[words.index("-P") + 1], words[-1]
        if name.endswith(".socket"):
            return 0, ("active" if name in self.sockets else "inactive") if prop == "ActiveState" else ""
        service = self.service(name)
        values = {"ActiveState": service.state, "NRestarts": service.restarts,
                  "MainPID": service.proc.pid if service.proc else 0}
        return 0, str(values.get(prop, ""))

    def systemctl(self, words):
        self.calls.write(" ".join(words) + "\n")
        words = [w for w in words if w not in ("--user", "--system", "--no-pager")]
        verb, names = words[0], words[1:]
        if verb == "daemon-reload":
            self.units.clear()
            return 0, ""
        if verb == "show":
            return self.show(names)
        name = names[0]
        if verb != "stop" and verb != "disable" and not os.path.exists(self.path(name)):
            return 1, f"Unit {name} could not be found."
        if verb == "cat":
            return 0, f"# {self.path(name)}\n" + open(self.path(name)).read()
        if verb == "enable":
            self.enabled.add(name)
            return 0, ""
        if verb == "disable":
            self.enabled.discard(name)
            return 0, ""
        if verb == "is-enabled":
            return (0, "enabled") if name in self.enabled else (1, "disabled")
        if verb == "start":
            return self.start(name)
        if verb == "stop":
            return self.stop(name)
        if verb == "restart":
            self.stop(name)
            return self.start(name)
        return 1, f"Unknown command verb {verb}."

    def journalctl(self, words):
        name = words[words.index("--unit") + 1]
        count = int(words[words.index("--lines") + 1]) if "--lines" in words else 10
        if not os.path.exists(self.log_path(name)):
            return 0, "-- No entries --"
        with open(self.log_path(name), errors="replace") as f:
            return 0, "".join(f.readlines()[-count:])

    def serve(self, path):
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(64)
        print("ready", flush=True)
        while True:
            peer, _ = server.accept()
            threading.Thread(target=self.answer, args=(peer,), daemon=True).start()

    def answer(self, peer):
        with peer, peer.makefile("r") as f:
            program, words = json.loads(f.readline())
            try:
                result = self.journalctl(words) if program == "journalctl" else self.systemctl(words)
            except Exception as problem:  # pylint: disable=broad-except
                result = (1, f"fake systemd: {problem!r}")
            peer.sendall(json.dumps(result).encode())


def main():
    path = os.environ["FAKE_SYSTEMD"]
    if sys.argv[1] == "manager":
        Manager(os.environ["XDG_CONFIG_HOME"]).serve(path)
        return 0
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    peer.sendall((json.dumps([sys.argv[1], sys.argv[2:]]) + "\n").encode())
    with peer.makefile() as f:
        code, text = json.loads(f.read())
    if text:
        print(text)
    return code


sys.exit(main())
