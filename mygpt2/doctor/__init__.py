"""A self-test of machine and installation: each check is a function that returns findings and never raises."""

from mygpt2.doctor.finding import FAIL, OK, SKIP, WARN, Finding
from mygpt2.doctor.run import diagnose

__all__ = ["FAIL", "OK", "SKIP", "WARN", "Finding", "diagnose"]
