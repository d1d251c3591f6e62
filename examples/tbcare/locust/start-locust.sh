#!/bin/sh
exec locust -f /srv/locustfile.py
