#!/bin/sh
exec python3 /work/exporter.py
