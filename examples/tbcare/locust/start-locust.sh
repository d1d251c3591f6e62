#!/bin/sh
exec locust -f /work/locustfile.py
