"""What the ripples tab shows and does: subjects, their cached analyses, figures, steps and studies."""
