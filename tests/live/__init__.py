"""Tests against real gateways, with real keys."""
