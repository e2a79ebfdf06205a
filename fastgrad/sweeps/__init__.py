"""Sweeps: a job at every point of a grid, kept in a store, run here or on an executor."""
