"""Throwaway PostgreSQL and Redis servers from Python packages, for the lab and for drills."""
