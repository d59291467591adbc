"""What a person looks at after a run: contact sheets and one page."""
