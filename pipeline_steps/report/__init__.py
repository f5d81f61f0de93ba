"""What people look at: tables beside the report's, figures, pictures."""
