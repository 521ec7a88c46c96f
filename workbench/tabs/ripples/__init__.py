"""Ripples: subjects, their cached analyses, figures, steps and studies."""
