"""What is found out about a clip: one file per stage."""
