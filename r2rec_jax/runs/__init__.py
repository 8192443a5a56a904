"""What each command does in its workdir: the stages of a run, their inputs and their results."""
