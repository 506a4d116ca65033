"""Starts, asks and ends instances of Home Assistant Core, with Core's own Python.

It uses the REST and WebSocket interfaces that a browser uses. The one thing that
is written into Core's storage is where it listens: no interface sets that before
the first start. A command prints one JSON document, or fails with a sentence on
stderr.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

INSTANCES = Path("/srv")

CONFIGURATION = """\
homeassistant:
  name: Test
  time_zone: UTC
  unit_system: metric
  currency: EUR
  country: DE
  language: en
  latitude: 52
  longitude: 13
  elevation: 30
  internal_url: URL
  external_url: URL
  packages: !include_dir_named packages
automation manual: !include_dir_merge_list automations
script:
history:
logger:
  default: warning
  logs:
    homeassistant.components.mqtt: info
"""

# A line of the log that says that something is wrong. What is said before a broker
# is connected is about what is not installed here, and kept as the baseline.
COMPLAINT = re.compile(r"^\S+ \S+ (?:WARNING|ERROR|CRITICAL) \(\S+\) (\[[\w.]+\] .*)")


class Failure(Exception):
    """What went wrong, for whoever ran the command."""


class Instance:
    def __init__(self, name: str):
        if not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
            raise Failure(f"instance name {name!r}: use a-z, 0-9, - and _")
        self.folder = INSTANCES / name
        self.access = self.folder / "access.json"
        self.log = self.folder / "output.log"

    def known(self) -> dict:
        try:
            return json.loads(self.access.read_text())
        except FileNotFoundError:
            raise Failure(f"no instance in {self.folder.name}: start it first") from None

    def running(self) -> bool:
        try:
            pid = self.known()["pid"]
            os.kill(pid, 0)
            return True
        except (Failure, ProcessLookupError):
            return False

    def launch(self) -> int:
        # With 100 Core asks to be started again: so ends the action homeassistant.restart.
        again = "trap 'kill -TERM $child; wait $child; exit' TERM; while :; do \"$@\" & child=$!; wait $child; [ $? = 100 ] || exit; done"
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                ["sh", "-c", again, "core", sys.executable, "-m", "homeassistant", "--config", str(self.folder),
                 "--skip-pip", "--log-no-color"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=self.folder)
        return process.pid

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else ""

    def complaints(self) -> list[str]:
        """Warnings and errors since the start, each with the lines of detail below it."""
        found, take = [], False
        for line in self.log.read_text(errors="replace").splitlines():
            if re.match(r"^\d{4}-\d\d-\d\d ", line):
                take = bool(COMPLAINT.match(line))
                if take:
                    found.append(COMPLAINT.match(line)[1])
            elif take:
                found[-1] += "\n" + line
        return found


class Client:
    """One user of the REST and WebSocket interfaces."""

    def __init__(self, url: str, token: str | None = None):
        self.url = url
        self.http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=aiohttp.ClientTimeout(total=30),
            connector=aiohttp.TCPConnector(ssl=False))
        self.token = token

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.http.close()

    async def get(self, path: str):
        async with self.http.get(self.url + path) as r:
            if r.status == 404:
                return None
            if r.status != 200:
                raise Failure(f"GET {path}: {r.status} {(await r.text())[:300]}")
            return await r.json() if "json" in r.headers.get("Content-Type", "") else await r.text()

    async def post(self, path: str, body=None, form=None):
        async with self.http.post(self.url + path, json=body, data=form) as r:
            text = await r.text()
            if r.status not in (200, 201):
                raise Failure(f"POST {path}: {r.status} {text[:300]}")
            return json.loads(text) if text[:1] in "{[" else text

    async def ask(self, *messages: dict):
        """Sends WebSocket commands, each after the answer to the one before, and gives the results."""
        results = []
        async with self.http.ws_connect(self.url + "/api/websocket", max_msg_size=0) as ws:
            await ws.receive_json()
            await ws.send_json({"type": "auth", "access_token": self.token})
            if (answer := await ws.receive_json())["type"] != "auth_ok":
                raise Failure(f"not let in: {answer}")
            for number, message in enumerate(messages, 1):
                await ws.send_json({"id": number, **message})
                while True:
                    answer = await ws.receive_json()
                    if answer.get("id") == number and answer["type"] == "result":
                        break
                if not answer["success"]:
                    raise Failure(f"{message['type']}: {answer['error']['message']}")
                results.append(answer["result"])
        return results


async def until(what: str, seconds: float, attempt, alive=lambda: True):
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        if not alive():
            raise Failure(f"{what}: Home Assistant ended")
        try:
            if (value := await attempt()) not in (None, False):
                return value
        except (aiohttp.ClientError, Failure, asyncio.TimeoutError) as error:
            last = error
        await asyncio.sleep(0.25)
    raise Failure(f"{what}: not within {seconds:.0f} s ({last})")


async def wait_running(instance: Instance, url: str, token: str):
    async with Client(url, token) as client:
        async def state():
            return ((await client.get("/api/config")) or {}).get("state") == "RUNNING"
        await until("Home Assistant starting", 180, state, instance.running)
        config = await client.get("/api/config")
        if config.get("recovery_mode") or config.get("safe_mode"):
            raise Failure("Home Assistant is in recovery mode:\n" + instance.tail())


async def onboard(instance: Instance, url: str) -> str:
    """Does what the welcome pages do, and gives a long-lived token."""
    client_id = url + "/"
    async with Client(url) as client:
        await until("Home Assistant answering", 180, lambda: client.get("/api/onboarding"), instance.running)
        code = (await client.post("/api/onboarding/users", {
            "client_id": client_id, "name": "Test", "username": "test", "password": "test-password", "language": "en"}))["auth_code"]
        token = (await client.post("/auth/token", form={
            "grant_type": "authorization_code", "code": code, "client_id": client_id}))["access_token"]
    async with Client(url, token) as client:
        await client.post("/api/onboarding/core_config", {})
        await client.post("/api/onboarding/analytics", {})
        await client.post("/api/onboarding/integration", {"client_id": client_id, "redirect_uri": client_id})
        return (await client.ask({"type": "auth/long_lived_access_token", "client_name": "control", "lifespan": 1}))[0]


async def connect_mqtt(client: Client, broker: str, username: str | None, password: str | None):
    host, _, port = broker.rpartition(":")
    flow = await client.post("/api/config/config_entries/flow", {"handler": "mqtt", "show_advanced_options": True})
    answer = {"broker": host, "port": int(port), "protocol": "5",
              "other_settings": {"set_client_cert": False, "set_ca_cert": "off", "transport": "tcp"}}
    if username:
        answer |= {"username": username, "password": password or ""}
    result = await client.post(f"/api/config/config_entries/flow/{flow['flow_id']}", answer)
    if result["type"] != "create_entry":
        raise Failure(f"Home Assistant cannot use the broker {broker}: {result.get('errors')}")


async def start(a):
    instance = Instance(a.name)
    if instance.running():
        raise Failure(f"{a.name} is running already")
    host, _, port = a.listen.rpartition(":")
    url = f"{'https' if a.tls else 'http'}://{a.listen}"
    fresh = not instance.access.exists()
    if fresh:
        shutil.rmtree(instance.folder / ".storage", ignore_errors=True)
    for sub in ("packages", "automations", ".storage", "blueprints/automation"):
        (instance.folder / sub).mkdir(parents=True, exist_ok=True)
    configuration = instance.folder / "configuration.yaml"
    if not configuration.exists():
        configuration.write_text(CONFIGURATION.replace("URL", url))
    storage = instance.folder / ".storage" / "http"
    if not storage.exists():
        tls = {"ssl_certificate": str(instance.folder / "ssl/fullchain.pem"), "ssl_key": str(instance.folder / "ssl/privkey.pem")} if a.tls else {}
        for file in tls.values():
            if not Path(file).is_file():
                raise Failure(f"--tls needs {file}")
        storage.write_text(json.dumps({"version": 2, "minor_version": 2, "key": "http", "data": {
            "stable": tls | {"server_host": [host], "server_port": int(port), "login_attempts_threshold": -1, "ip_ban_enabled": False,
                       "ssl_profile": "modern", "use_x_frame_options": True, "created_at": "2026-01-01T00:00:00+00:00",
                       "cors_allowed_origins": ["https://cast.home-assistant.io"], "error": None, "error_message": None},
            "pending": None, "yaml_migration_done": True}}))
    instance.log.write_bytes(b"")
    access = instance.known() if not fresh else {"url": url}
    access["pid"] = instance.launch()
    instance.access.write_text(json.dumps(access))
    try:
        if fresh:
            access["token"] = await onboard(instance, url)
            instance.access.write_text(json.dumps(access))
        await wait_running(instance, access["url"], access["token"])
        if fresh:
            access["baseline"] = [c.splitlines()[0] for c in instance.complaints()]
            instance.access.write_text(json.dumps(access))
        if fresh and a.broker:
            async with Client(url, access["token"]) as client:
                await connect_mqtt(client, a.broker, a.username, a.password)
    except Failure as failure:
        if fresh:
            stop_process(access["pid"])
            instance.access.unlink()
        raise Failure(f"{failure}\n{instance.tail()}") from None
    return {key: access[key] for key in ("url", "token", "pid")} | {"folder": str(instance.folder)}


def stop_process(pid: int):
    for send, signum, seconds in ((os.kill, signal.SIGTERM, 40), (os.killpg, signal.SIGKILL, 5)):
        try:
            send(pid, signum)
            for _ in range(seconds * 10):
                time.sleep(0.1)
                try:
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        return
                except ChildProcessError:  # started by an earlier command
                    os.kill(pid, 0)
        except ProcessLookupError:
            return


async def stop(a):
    instance = Instance(a.name)
    if instance.running():
        stop_process(instance.known()["pid"])
    return {"stopped": a.name}


async def restart(a):
    """Ends the process and starts it again, with its storage and without its memory."""
    await stop(a)
    url = Instance(a.name).known()["url"]
    a.listen, a.tls, a.broker = url.partition("://")[2], url.startswith("https"), None
    return await start(a)


async def remove(a):
    await stop(a)
    shutil.rmtree(Instance(a.name).folder, ignore_errors=True)
    return {"removed": a.name}


def client_of(a) -> Client:
    known = Instance(a.name).known()
    return Client(known["url"], known["token"])


async def states(a):
    async with client_of(a) as client:
        return {s["entity_id"]: {"state": s["state"], **s["attributes"]} for s in await client.get("/api/states")
                if re.search(a.pattern, s["entity_id"])}


async def registry(a):
    """MQTT devices with their entities as Home Assistant groups them, and entities without a device."""
    async with client_of(a) as client:
        devices, entities = await client.ask({"type": "config/device_registry/list"}, {"type": "config/entity_registry/list"})
    keep = ("unique_id", "entity_category", "disabled_by", "original_name")
    names = {d["id"]: d["name"] for d in devices}
    out = []
    for d in devices:
        mine = {e["entity_id"]: {k: e.get(k) for k in keep} for e in entities if e["device_id"] == d["id"] and e["platform"] == "mqtt"}
        if mine or any(i[0] == "mqtt" for i in d["identifiers"]):
            out.append({**{k: d.get(k) for k in ("name", "manufacturer", "model", "sw_version", "configuration_url", "identifiers")},
                        "via": names.get(d.get("via_device_id")), "entities": mine})
    loose = {e["entity_id"]: {k: e.get(k) for k in keep} for e in entities if e["platform"] == "mqtt" and not e["device_id"]}
    return {"devices": sorted(out, key=lambda d: d["name"] or ""), "without_device": loose}


async def call(a):
    domain, _, service = a.action.partition(".")
    async with client_of(a) as client:
        return await client.post(f"/api/services/{domain}/{service}", json.loads(a.data))


async def ask(a):
    async with client_of(a) as client:
        return (await client.ask(*(json.loads(m) for m in a.messages)))


async def template(a):
    async with client_of(a) as client:
        return await client.post("/api/template", {"template": a.template})


async def wait(a):
    """Waits until an entity's whole state matches; that of one which is not there is `absent`."""
    async with client_of(a) as client:
        async def matches():
            found = await client.get("/api/states/" + a.entity)
            state = found["state"] if found else "absent"
            matches.last = state
            return {"entity_id": a.entity, **(found or {"state": "absent"})} if re.fullmatch(a.state, state) else None
        try:
            return await until(f"{a.entity} to be {a.state}", a.seconds, matches)
        except Failure:
            raise Failure(f"{a.entity} is {getattr(matches, 'last', '?')}, not {a.state}, after {a.seconds:.0f} s") from None


async def complaints(a):
    instance = Instance(a.name)
    baseline = set(instance.known()["baseline"])
    found = [c for c in instance.complaints() if c.splitlines()[0] not in baseline]
    if found:
        raise Failure("\n".join(found))
    return []


async def validate(a):
    """Holds discovery payloads, lines of topic and payload on stdin, against Core's own schemas."""
    import importlib
    from homeassistant.core import HomeAssistant
    HomeAssistant("/srv")  # without one the schemas do not parse templates
    from homeassistant.components.mqtt.discovery import MQTTDiscoveryPayload, TOPIC_MATCHER, _replace_all_abbreviations
    wrong = []
    count = 0
    for line in sys.stdin:
        topic, _, payload = line.rstrip("\n").partition(" ")
        if not payload:
            continue
        count += 1
        hit = TOPIC_MATCHER.match(topic.split("/", 1)[1])
        if not hit:
            wrong.append(f"{topic}: not a discovery topic")
            continue
        component = hit.group("component")
        data = MQTTDiscoveryPayload(json.loads(payload))
        given = set(data)
        _replace_all_abbreviations(data)
        if set(data) != given:
            wrong.append(f"{topic}: abbreviated keys {sorted(given - set(data))}")
        try:
            schema = importlib.import_module(f"homeassistant.components.mqtt.{component}").DISCOVERY_SCHEMA
            lost = set(data) - set(schema(dict(data)))
            if lost:
                wrong.append(f"{topic}: keys that {component} does not know: {sorted(lost)}")
        except Exception as error:  # whatever the schema raises: its words are the message
            wrong.append(f"{topic}: {error}")
    if wrong:
        raise Failure("\n".join(wrong))
    return {"valid": count}


def main():
    p = argparse.ArgumentParser(prog="home-assistant")
    sub = p.add_subparsers(required=True)

    def command(function, *arguments, named=True):
        c = sub.add_parser(function.__name__, help=function.__doc__)
        c.set_defaults(function=function)
        if named:
            c.add_argument("name")
        for names, options in arguments:
            c.add_argument(*names.split(), **options)

    command(start, ("--broker", {}), ("--username", {}), ("--password", {}), ("--listen", {"default": "127.0.0.1:18123"}),
            ("--tls", {"action": "store_true"}))
    command(stop)
    command(restart)
    command(remove)
    command(states, ("pattern", {"nargs": "?", "default": "."}))
    command(registry)
    command(call, ("action", {}), ("data", {"nargs": "?", "default": "{}"}))
    command(ask, ("messages", {"nargs": "+"}))
    command(template, ("template", {}))
    command(wait, ("entity", {}), ("state", {}), ("--seconds", {"type": float, "default": 20}))
    command(complaints)
    command(validate, named=False)
    a = p.parse_args()
    try:
        result = asyncio.run(a.function(a))
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
    print(json.dumps(result, indent=1, ensure_ascii=False, sort_keys=True) if not isinstance(result, str) else result)


main()
