"""Prints what the integrations named on the command line, and those that they
depend on, need beside Core itself. Runs with Core's own Python."""

import json
import sys
from pathlib import Path

import homeassistant

INTEGRATIONS = Path(homeassistant.__file__).parent / "components"

todo, seen, wanted = list(sys.argv[1:]), set(), set()
while todo:
    name = todo.pop()
    manifest = INTEGRATIONS / name / "manifest.json"
    if name in seen or not manifest.exists():
        continue
    seen.add(name)
    facts = json.loads(manifest.read_text())
    wanted.update(facts.get("requirements", []))
    todo += facts.get("dependencies", [])
print("\n".join(sorted(wanted)))
