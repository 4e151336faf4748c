#!/usr/bin/env python3
"""Prints the classes that a model found in a photograph: show-classes NAME, with the answer and curl's seconds on standard input."""
import json
import sys

answer, seconds = sys.stdin.read().rstrip().rsplit("\n", 1)
seen = json.loads(answer)["predictions"][:3]
classes = ", ".join(f"{entry['label']} {entry['probability']:.0%}" for entry in seen)
print(f"{sys.argv[1]:<12} {float(seconds) * 1000:4.0f} ms  {classes}")
