"""What people look at: tables beside the paper's, figures, pictures."""
