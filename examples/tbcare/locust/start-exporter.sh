#!/bin/sh
exec python3 /srv/exporter.py
