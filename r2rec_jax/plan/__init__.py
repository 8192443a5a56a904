"""What a run needs and how fast it can be, from its compiled programs and closed forms: no accelerator."""
